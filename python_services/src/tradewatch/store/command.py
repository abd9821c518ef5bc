"""`tradewatch database upgrade`: the schema's upgrade as a command that waits for a server that is starting."""

import asyncio
import sys
import time

import asyncpg

from tradewatch.store import schema

# A server that starts, or that is being reached for the first time, gets this long.
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 1.0
_NOT_YET = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError)


def upgrade(settings: schema.UpgradeSettings, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Bring the schema up to date and say so in one line. Returns the exit code: 0, or 1 with one line on stderr."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            revision = asyncio.run(schema.upgrade(settings))
        except _NOT_YET as error:
            if time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
                continue
            return _refuse(f"no answer within {patience_seconds:g} s: {type(error).__name__}")
        except asyncpg.PostgresError as error:
            # Its message can name the role and the object, never a password.
            return _refuse(f"refused: {' '.join(str(error).split())}")
        print(f"schema {revision}")
        return 0


def _refuse(why: str) -> int:
    print(f"tradewatch database upgrade: {why}", file=sys.stderr)
    return 1
