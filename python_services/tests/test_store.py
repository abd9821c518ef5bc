"""The store: its schema, what the services' role may do, and the audit."""

import asyncio
import uuid
from pathlib import Path

import asyncpg
import pytest
from postgres_support import OWNER_PASSWORD, ROLE_PASSWORD, Database, PostgresServer
from pydantic import SecretStr
from tradewatch import cli
from tradewatch.common.tracing import headers, trace_id_of
from tradewatch.store import audit, command, schema
from tradewatch.store.database import connect, ping

DECISION = uuid.UUID(int=7)
TRACE = "7" * 32
COLUMNS = "SELECT table_name, column_name FROM information_schema.columns ORDER BY 1, 2"
SIGNAL = f"""
INSERT INTO signals (signal_id, trace_id, product_id, side, confidence, reference_price, model_version, rationale,
                     created, expires)
VALUES ('{DECISION}', '{TRACE}', 'BTC-USD', 'BUY', 0.9, 65000, 'v1', 'test', now(), now())
"""


async def test_a_second_upgrade_changes_nothing(postgres: PostgresServer, database: Database) -> None:
    before = await database.fetch(COLUMNS)
    assert await schema.upgrade(postgres.upgrade_settings(database)) == schema.head()
    assert await database.fetch(COLUMNS) == before


async def test_upgrades_started_together_wait_for_each_other(postgres: PostgresServer) -> None:
    empty = await postgres.create("side_by_side")
    settings = postgres.upgrade_settings(empty)
    assert await asyncio.gather(*(schema.upgrade(settings) for _ in range(3))) == [schema.head()] * 3


async def test_alerts_that_were_told_before_are_taken_over(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await postgres.create("told_before")
    settings = postgres.upgrade_settings(old)
    with monkeypatch.context() as patched:
        to_head = schema.command.upgrade
        patched.setattr(schema.command, "upgrade", lambda config, _: to_head(config, "0003"))
        await schema.upgrade(settings)
    await old.fetch("""
INSERT INTO alerts (fingerprint, starts_at, status, ends_at, name, team, severity, labels, annotations, received)
SELECT '0123456789abcdef', now(), status, ends_at, 'Old', 'devops', 'critical', '{}', '{}', now() - interval '1 day'
FROM (VALUES ('firing', NULL::timestamptz), ('resolved', now())) AS told (status, ends_at)
""")
    await schema.upgrade(settings)
    rows = await old.fetch("SELECT seen_since = received AS kept, last_seen > received AS seen, unseen FROM alerts")
    assert [tuple(row.values()) for row in rows] == [(True, True, None)] * 2


async def test_check_tells_a_good_store_from_a_bad_one(postgres: PostgresServer, database: Database) -> None:
    async with database.connect() as pool:
        found = await ping(pool)
        assert (found.ok, found.detail) == (True, f"schema {schema.head()}")
        await database.fetch("UPDATE alembic_version SET version_num = '0000'")
        assert not (await ping(pool)).ok
        await database.fetch("DROP TABLE alembic_version")
        assert "no schema" in (await ping(pool)).detail


async def test_a_store_that_is_away_is_an_answer_not_an_error() -> None:
    async with connect("postgresql://tradewatch@127.0.0.1:1/tradewatch", "secret", "test") as pool:
        found = await ping(pool)
    assert not found.ok
    assert "secret" not in found.detail


async def test_a_wrong_password_is_refused(database: Database) -> None:
    async with connect(database.url, "wrong", "test") as pool:
        assert (await ping(pool)).detail == "no answer: InvalidPasswordError"


@pytest.mark.parametrize("table", ["audit_log", "fills"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET trace_id = ''", "DELETE FROM {}", "TRUNCATE {}"])
async def test_nobody_changes_what_is_append_only(database: Database, table: str, statement: str) -> None:
    statement = statement.format(table).replace("trace_id", "trace_id" if table == "audit_log" else "product_id")
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.fetch(statement)
    async with database.connect() as pool:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)


async def test_the_services_role_cannot_alter_the_schema(database: Database) -> None:
    async with database.connect() as pool:
        for statement in ("DROP TABLE signals", "CREATE TABLE x (y int)", "DELETE FROM signals"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(statement)


async def test_steps_of_a_decision_have_no_hole_when_writers_compete(database: Database) -> None:
    async with database.connect() as pool:

        async def write(number: int) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await audit.append(
                    connection, actor=f"writer-{number}", action="test", trace_id=TRACE, decision_id=DECISION
                )
                if number % 5 == 0:
                    raise RuntimeError("rolled back")

        outcomes = await asyncio.gather(*(write(number) for number in range(20)), return_exceptions=True)
        assert sum(outcome is None for outcome in outcomes) == 16
        await audit.append(pool, actor="person", action="without a decision", details={"reason": "test"})
    steps = [
        row["step"] for row in await database.fetch("SELECT step FROM audit_log WHERE step IS NOT NULL ORDER BY 1")
    ]
    assert steps == list(range(1, 17))


async def test_a_final_state_stays(database: Database) -> None:
    await database.fetch(SIGNAL)
    async with database.connect() as pool:
        insert = "INSERT INTO decisions (decision_id, trace_id, state) VALUES ($1, $2, 'received')"
        await pool.execute(insert, DECISION, TRACE)
        await pool.execute("UPDATE decisions SET state = 'filled', finished = now()")
        await pool.execute("UPDATE decisions SET reason = 'as before'")
        for change in ("state = 'failed'", "finished = NULL"):
            with pytest.raises(asyncpg.RestrictViolationError, match="final"):
                await pool.execute(f"UPDATE decisions SET {change}")
        with pytest.raises(asyncpg.UniqueViolationError):
            await pool.execute(insert, DECISION, TRACE)


async def test_a_product_keeps_when_it_last_lost_money(database: Database) -> None:
    update = "UPDATE positions SET realized_pnl = $1 RETURNING last_loss"
    async with database.connect() as pool:
        await pool.execute("INSERT INTO positions VALUES ('BTC-USD', 1, 65000, 0, 0)")
        assert await pool.fetchval(update, 10) is None
        lost = await pool.fetchval(update, 4)
        assert lost is not None
        assert await pool.fetchval(update, 5) == lost


def test_the_verifier_is_the_one_of_the_rfc() -> None:
    # RFC 7677 section 3: user "user", password "pencil".
    import base64

    verifier = schema.scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_a_trace_id_survives_the_header() -> None:
    assert trace_id_of(headers(TRACE)) == TRACE


@pytest.mark.parametrize("header", ["", "00-short-1-01", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{TRACE.upper()}G-1-01"])
def test_a_malformed_header_is_no_trace_id(header: str) -> None:
    assert trace_id_of({"traceparent": header}) is None


def test_the_command_upgrades_and_says_so(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = asyncio.run(postgres.create("by_command"))
    for name, password in (("DATABASE", OWNER_PASSWORD), ("SERVICE", ROLE_PASSWORD)):
        (tmp_path / name).write_text(password)
        monkeypatch.setenv(f"TRADEWATCH_{name}_PASSWORD_FILE", str(tmp_path / name))
    monkeypatch.setenv("TRADEWATCH_DATABASE_URL", made.owner_url)
    assert cli.main(["database", "upgrade"]) == 0
    assert capsys.readouterr().out == f"schema {schema.head()}\n"


def test_the_command_gives_up_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    settings = schema.UpgradeSettings(
        database_url="postgresql://x@127.0.0.1:1/x", database_password=SecretStr("hidden")
    )
    assert command.upgrade(settings, 0) == 1
    error = capsys.readouterr().err
    assert error == "tradewatch database upgrade: no answer within 0 s: ConnectionRefusedError\n"
