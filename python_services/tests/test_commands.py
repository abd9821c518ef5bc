"""The commands for people: positions, orders, decisions, one decision's story, and the kill switch."""

import asyncio
import json
import re
from pathlib import Path
from uuid import UUID

import pytest
from postgres_support import ROLE_PASSWORD, Database
from services_support import ValkeyServer
from test_risk_manager import TOKEN, running
from tradewatch.cli import main

DECISION, TRACE = UUID(int=42), "42" * 16
STORY = f"""
INSERT INTO signals VALUES ('{DECISION}', '{TRACE}', 'BTC-USD', 'BUY', 0.9, 65000, 'v7', '[bold]up[/bold]',
                            now() - interval '3 s', now());
INSERT INTO decisions (decision_id, trace_id, state, received, finished)
VALUES ('{DECISION}', '{TRACE}', 'filled', now() - interval '2.5 s', now());
INSERT INTO risk_assessments (decision_id, stage, trace_id, product_id, side, decision, reason, detail,
                              approved_quote_size, limit_price, risk_score)
VALUES ('{DECISION}', 'before_llm', '{TRACE}', 'BTC-USD', 'BUY', 'approve', 'within_limits', 'fine', 900, 65100, 0.2);
INSERT INTO llm_validations (decision_id, trace_id, decision, reason, reasons, model, duration_seconds)
VALUES ('{DECISION}', '{TRACE}', 'approve', 'plausible', '["why not"]', 'gpt', 0.7);
INSERT INTO orders (client_order_id, decision_id, trace_id, product_id, side, order_type, quote_size, status,
                    filled_size)
VALUES ('{UUID(int=9)}', '{DECISION}', '{TRACE}', 'BTC-USD', 'BUY', 'limit_ioc', 900, 'open', 0.0100);
INSERT INTO fills (trade_id, client_order_id, product_id, side, price, size, fee, liquidity, traded)
VALUES ('t-1', '{UUID(int=9)}', 'BTC-USD', 'BUY', 65050, 0.0100, 0.65, 'TAKER', now());
INSERT INTO audit_log (trace_id, decision_id, actor, action) VALUES ('{TRACE}', '{DECISION}', 'me', 'accepted');
INSERT INTO positions VALUES ('BTC-USD', 0.0100, 65050, 0, 0.65)
"""


@pytest.fixture
def store(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    (tmp_path / "password").write_text(ROLE_PASSWORD)
    monkeypatch.setenv("TRADEWATCH_DATABASE_URL", database.url)
    monkeypatch.setenv("TRADEWATCH_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))

    async def fill() -> None:
        for statement in STORY.split(";\n"):
            await database.fetch(statement)

    asyncio.run(fill())
    return database


@pytest.mark.usefixtures("store")
def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["positions"]) == 0
    table = capsys.readouterr().out
    assert "BTC-USD" in table
    assert "0.01 " in table
    assert main(["orders", "--open", "--limit", "1", "--json"]) == 0
    (order,) = json.loads(capsys.readouterr().out)
    assert (order["client_order_id"], order["filled_size"], order["finished"]) == (str(UUID(int=9)), "0.01", None)
    assert main(["decisions", "--json"]) == 0
    (decision,) = json.loads(capsys.readouterr().out)
    assert (decision["state"], decision["lasted_seconds"]) == ("filled", 2.5)
    assert main(["decisions", "--open"]) == 0
    assert str(DECISION) not in capsys.readouterr().out


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("asked", [str(DECISION), TRACE])
def test_the_story_of_a_decision(capsys: pytest.CaptureFixture[str], asked: str) -> None:
    assert main(["trace", asked, "--json"]) == 0
    story = json.loads(capsys.readouterr().out)
    assert (story["decision_ids"], story["trace_ids"]) == ([str(DECISION)], [TRACE])
    sources = ["signal", "decision", "risk", "llm", "order", "fill", "audit"]
    assert [step["source"] for step in story["steps"][:2]] == sources[:2]
    assert sorted(step["source"] for step in story["steps"]) == sorted(sources)
    assert main(["trace", asked]) == 0
    table = capsys.readouterr().out
    assert "[bold]up[/bold]" in table, "what was stored is text, not markup"
    assert re.search(r" 0\.[56]\d\d .*taken up", table), "seconds after the signal"


@pytest.mark.usefixtures("store")
def test_what_is_not_there_and_what_is_no_id(capsys: pytest.CaptureFixture[str]) -> None:
    for asked, code in (("f" * 32, 3), (str(UUID(int=1)), 3), ("../etc", 2)):
        assert main(["trace", asked]) == code
        assert capsys.readouterr().err.count("\n") == 1


def test_a_store_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRADEWATCH_DATABASE_URL", "postgresql://tradewatch@127.0.0.1:1/tradewatch")
    for command in (["positions"], ["orders"], ["decisions"], ["trace", TRACE]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert error == f"tradewatch {command[0]}: the store does not answer: ConnectionRefusedError\n"


async def test_the_kill_switch(
    database: Database, valkey: ValkeyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "wrong").write_text("wrong" * 5)
    async with running(database, valkey) as risk:

        async def switch(action: str, *arguments: str, token: str = "token") -> tuple[int, str, str]:
            to = ["--url", str(risk.client.base_url), "--token-file", str(tmp_path / token)]
            code = await asyncio.to_thread(main, ["kill-switch", action, *to, *arguments])
            output = capsys.readouterr()
            return code, output.out, output.err

        code, out, err = await switch("engage", "--reason", "drill", token="wrong")
        assert (code, out) == (1, "")
        assert "refused (401)" in err
        code, out, _ = await switch("engage", "--reason", "drill", "--actor", "ann")
        assert code == 1, "engaged, but nobody answers there who could cancel"
        assert "\nHALTED, kill switch engaged; drill (ann, " in f"\n{out}"
        code, out, _ = await switch("status", "--json")
        assert code == 0
        assert '"kill_switch": true' in out
        code, out, _ = await switch("release", "--reason", "over")
        assert code == 0
        assert "\nACTIVE, kill switch released; over (" in f"\n{out}"
    code, _, err = await switch("status")
    assert (code, err.count("\n")) == (1, 1)


def test_the_kill_switch_without_a_token_is_a_configuration_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kill-switch", "engage", "--reason", "x"]) == 2
    assert capsys.readouterr().err == "tradewatch kill-switch engage: TRADEWATCH_KILL_SWITCH_TOKEN_FILE: is required\n"
