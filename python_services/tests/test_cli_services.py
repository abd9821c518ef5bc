"""The table of services: every entry leads somewhere, and running one does not load another."""

import subprocess
import sys

import pytest
from tradewatch.cli.services import SERVICES

HEAVY = {"sklearn", "talib", "openai", "sqlalchemy", "alembic", "feedparser", "vaderSentiment"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_entry_leads_to_its_service(name: str) -> None:
    entry = SERVICES[name]
    assert callable(entry.main())
    assert {"http_port", "log_level"} <= entry.settings_class().model_fields.keys()


def test_the_command_itself_loads_no_service() -> None:
    code = "import sys; import tradewatch.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not HEAVY & set(loaded)
