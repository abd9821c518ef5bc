"""Which schema this version was written for."""

from functools import cache

from alembic.config import Config
from alembic.script import ScriptDirectory

MIGRATIONS = "tradewatch.store:migrations"


def configuration() -> Config:
    """Alembic's configuration: the migrations that the package holds."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    return config


@cache
def head() -> str:
    """The newest revision that this version knows."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    if revision is None:
        raise RuntimeError("the package holds no migration")
    return revision
