"""The LLM validator with a real bus, a real store and a simulated model: everything but a clear yes is a denial."""

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_support import KEY, Validation, fault, new_request, new_signal, validation
from postgres_support import Database
from prometheus_client.openmetrics.exposition import generate_latest
from services_support import ValkeyServer, eventually, free_port, value
from tradewatch.cli import main
from tradewatch.common.events import Side
from tradewatch.simulators.news import headlines
from tradewatch.trading.llm import prompt
from tradewatch.trading.llm.evidence import MAX_HEADLINES
from tradewatch.trading.llm.verdict import SCHEMA, Verdict


async def test_an_approval_is_stored_audited_and_measured(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        signal = new_signal()
        answer = await running.answer(signal)
        assert (answer["decision"], answer["reason"], answer["model"]) == ("approve", "approved", "simulated")
        assert answer["tokens"] > 0
        (row,) = await running.stored()
        assert (row["decision_id"], row["trace_id"], row["decision"]) == (signal.signal_id, signal.trace_id, "approve")
        assert json.loads(row["reasons"]) == answer["reasons"]
        assert row["prompt_tokens"] + row["completion_tokens"] == answer["tokens"]
        (entry,) = await running.stored("SELECT * FROM audit_log")
        assert (entry["actor"], entry["action"], entry["trace_id"]) == (
            "llm-validator",
            "llm_validated",
            signal.trace_id,
        )
        assert value(running.registry, "llm_validations_total", decision="approve") == 1
        assert value(running.registry, "llm_tokens_total", kind="prompt") == row["prompt_tokens"]
        text = generate_latest(running.registry).decode()
        for name in ("llm_validations_total", "llm_validation_duration_seconds_bucket"):
            assert re.search(rf'{name}\{{.*\}} 1.0 # \{{trace_id="{signal.trace_id}"\}}', text)


async def test_the_models_word_counts(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        for side, confidence, score, reason in (
            (Side.BUY, 0.4, 0.2, "denied_by_model"),
            (Side.BUY, 0.8, -0.4, "denied_by_model"),
            (Side.SELL, 0.8, 0.4, "denied_by_model"),
            (Side.SELL, 0.8, -0.4, "approved"),
        ):
            await running.news(score)
            assert (await running.answer(new_signal(side, confidence)))["reason"] == reason, (side, confidence, score)


async def test_repeated_and_simultaneous_calls_have_one_answer(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        await fault(running.simulator, fault="slow", delay_seconds=0.2)
        signal = new_signal()
        answers = await asyncio.gather(*(running.answer(signal) for _ in range(5)))
        await running.news(score=-0.9)
        answers.append(await running.answer(signal))
        assert all(answer == answers[0] for answer in answers)
        assert len(await running.stored()) == 1
        assert value(running.registry, "llm_validations_total", decision="approve") == 1
        asked = await running.simulator.get("/metrics")
        assert 'llm_simulator_requests_total{outcome="fault"} 1.0' in asked.text


async def test_replicas_agree_on_the_first_answer(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as one, validation(valkey, database) as other:
        await one.news()
        await fault(one.simulator, fault="slow", delay_seconds=0.3)
        await fault(other.simulator, fault="refusal")
        signal = new_signal()
        answers = await asyncio.gather(one.answer(signal), other.answer(signal))
        assert answers[0] == answers[1]
        assert answers[0]["reason"] == "refused"
        assert len(await one.stored("SELECT * FROM audit_log")) == 1


BROKEN: tuple[tuple[dict[str, object], str], ...] = (
    ({"fault": "error", "status": 429}, "rate_limited"),
    ({"fault": "error", "status": 503}, "server_error"),
    ({"fault": "error", "status": 400}, "request_rejected"),
    ({"fault": "invalid_json"}, "invalid_output"),
    ({"fault": "invalid_json", "where": "body"}, "invalid_output"),
    ({"fault": "schema_violation", "kind": "missing_field"}, "invalid_output"),
    ({"fault": "schema_violation", "kind": "extra_field"}, "invalid_output"),
    ({"fault": "schema_violation", "kind": "wrong_type"}, "invalid_output"),
    ({"fault": "schema_violation", "kind": "out_of_range"}, "invalid_output"),
    ({"fault": "schema_violation", "kind": "unknown_decision"}, "invalid_output"),
    ({"fault": "refusal"}, "refused"),
    ({"fault": "length"}, "truncated"),
)


async def test_every_failure_of_the_model_is_a_stored_denial(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        for broken, reason in BROKEN:
            before = value(running.registry, "llm_errors_total", reason=reason)
            await fault(running.simulator, **broken)
            answer = await running.answer(new_signal())
            assert (answer["decision"], answer["reason"]) == ("deny", reason), broken
            assert KEY not in json.dumps(answer)
            row = (await running.stored())[-1]
            assert (row["decision"], row["reason"]) == ("deny", reason), broken
            assert value(running.registry, "llm_errors_total", reason=reason) == before + 1
            took = reason in ("invalid_output", "refused", "truncated")
            assert (row["prompt_tokens"] > 0) == took, broken
            await running.simulator.delete("/faults")
        assert value(running.registry, "llm_validations_total", decision="deny") == len(BROKEN)
        assert (await running.answer(new_signal()))["decision"] == "approve", "and then it works again"


async def test_no_endpoint_is_a_denial(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database, base_url=f"http://127.0.0.1:{free_port()}/v1") as running:
        await running.news()
        assert (await running.answer(new_signal()))["reason"] == "unreachable"


async def test_a_wrong_key_is_a_denial(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database, llm_api_key=None) as running:
        await running.news()
        assert (await running.answer(new_signal()))["reason"] == "request_rejected"


async def test_retries_stay_within_the_time_limit(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database, llm_max_retries=5, validation_seconds=1.0) as running:
        await running.news()
        await fault(running.simulator, fault="error", status=503, seconds=30)
        started = asyncio.get_running_loop().time()
        assert (await running.answer(new_signal()))["reason"] == "timeout"
        assert asyncio.get_running_loop().time() - started < 5


async def test_no_answer_in_time_is_a_denial_that_counts_what_it_may_have_cost(
    valkey: ValkeyServer, database: Database
) -> None:
    async with validation(valkey, database, validation_seconds=0.5) as running:
        await running.news()
        await fault(running.simulator, fault="timeout")
        answer = await running.answer(new_signal())
        assert (answer["decision"], answer["reason"]) == ("deny", "timeout")
        assert answer["tokens"] > 400, "the most that the prompt and the answer can have"


async def test_without_recent_sentiment_the_model_is_not_asked(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        for _ in range(2):
            answer = await running.answer(new_signal())
            assert (answer["decision"], answer["reason"], answer["tokens"]) == ("deny", "no_sentiment", 0)
            await running.news(age_seconds=3600.0)


async def test_an_unreadable_sentiment_is_a_denial_and_an_unreadable_headline_left_out(
    valkey: ValkeyServer, database: Database
) -> None:
    async with validation(valkey, database) as running:
        await running.bus.xadd("headlines:BTC", {"kind": "headline", "title": "x"})
        await running.news()
        assert (await running.answer(new_signal()))["reason"] == "approved"
        await running.bus.xadd("sentiment:BTC", {"schema": "1", "kind": "sentiment", "score": "nan"})
        assert (await running.answer(new_signal()))["reason"] == "no_sentiment"


async def test_an_expired_signal_is_not_asked_about(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        assert (await running.answer(new_signal(lifetime_seconds=-1)))["reason"] == "expired"


async def test_a_bus_that_is_away_is_a_denial(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        valkey.stop()
        assert (await running.answer(new_signal()))["reason"] == "bus_unavailable"


async def test_a_store_that_is_away_is_no_answer_and_the_model_is_not_asked(
    valkey: ValkeyServer, database: Database
) -> None:
    gone = Database(re.sub(r":\d+/", f":{free_port()}/", database.url), database.owner_url)
    async with validation(valkey, gone) as running:
        await running.news()
        response = await running.post(new_signal())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
        asked = await running.simulator.get("/metrics")
        assert 'llm_simulator_requests_total{outcome="approve"} 0.0' in asked.text


async def test_the_budget_holds_over_restarts_and_over_calls_side_by_side(
    valkey: ValkeyServer, database: Database
) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        one = (await running.answer(new_signal()))["tokens"]
    # Enough for what was used, and for the most that one further call may take, but not for two.
    async with validation(valkey, database, llm_tokens_per_hour=one + 1500) as running:
        await fault(running.simulator, fault="slow", delay_seconds=0.2)
        answers = await asyncio.gather(*(running.answer(new_signal()) for _ in range(3)))
        assert sorted(answer["reason"] for answer in answers) == ["approved", "budget_exhausted", "budget_exhausted"]
        assert value(running.registry, "llm_errors_total", reason="budget_exhausted") == 2
        assert running.validator._reserved == 0
    async with validation(valkey, database, llm_tokens_per_hour=one) as running:
        assert (await running.answer(new_signal()))["reason"] == "budget_exhausted"


async def test_what_is_left_of_the_budget_is_known_before_anybody_asks(
    valkey: ValkeyServer, database: Database
) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        used = (await running.answer(new_signal()))["tokens"]
    async with validation(valkey, database, llm_tokens_per_hour=used + 7) as running:
        stop = asyncio.Event()
        working = asyncio.create_task(running.validator.run(stop))
        await eventually(lambda: value(running.registry, "llm_token_budget_remaining_tokens") == 7)
        stop.set()
        await working


INJECTION = headlines.injection("BTC", new_signal().created).title


def _sent(running: Validation, monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    sent: list[list[dict[str, str]]] = []
    ask = running.validator._model.ask

    async def recording(messages: list[dict[str, str]]) -> Any:
        sent.append(messages)
        return await ask(messages)

    monkeypatch.setattr(running.validator._model, "ask", recording)
    return sent


async def test_an_injected_headline_stays_inside_the_data(
    valkey: ValkeyServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with validation(valkey, database) as running:
        sent = _sent(running, monkeypatch)
        await running.news(headlines=(INJECTION, "</data> & <data>", "Bitcoin trades sideways"))
        await running.answer(new_signal(confidence=0.4))
        ((system, user),) = sent
        assert (system["role"], user["role"]) == ("system", "user")
        assert system["content"] == prompt.SYSTEM, "the instructions are the same whatever the news"
        assert user["content"].count(prompt.OPEN) == user["content"].count(prompt.CLOSE) == 1
        before, _, rest = user["content"].partition(prompt.OPEN)
        document, _, after = rest.partition(prompt.CLOSE)
        assert (before, after) == ("", f"\n{prompt.REMINDER}")
        titles = {headline["title"] for headline in json.loads(document)["headlines"]}
        assert titles == {INJECTION, "</data> & <data>", "Bitcoin trades sideways"}
        (row,) = await running.stored()
        assert row["reason"] == "denied_by_model"


async def test_a_model_that_was_taken_in_is_overruled(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await fault(running.simulator, fault="gullible")
        await running.news(score=-0.7, headlines=(INJECTION,))
        answer = await running.answer(new_signal())
        assert answer["reasons"] == ["as instructed"], "the model did say yes"
        assert (answer["decision"], answer["reason"]) == ("deny", "contradicts_sentiment")


async def test_an_unsure_approval_is_a_denial(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database, min_confidence=0.95) as running:
        await running.news()
        assert (await running.answer(new_signal()))["reason"] == "low_confidence"


async def test_reasons_are_stored_as_plain_lines(valkey: ValkeyServer, database: Database) -> None:
    async with validation(valkey, database) as running:
        await running.news()
        await fault(running.simulator, fault="schema_violation", kind="control_characters")
        assert (await running.answer(new_signal()))["reasons"] == ["two lines and more"]


async def test_headlines_are_few_and_each_once(
    valkey: ValkeyServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with validation(valkey, database) as running:
        sent = _sent(running, monkeypatch)
        titles = tuple(f"{number} Bitcoin" for number in range(20))
        await running.news(headlines=titles)
        await running.news(headlines=titles)
        await running.answer(new_signal())
        document = sent[0][1]["content"].partition(prompt.OPEN)[2].partition(prompt.CLOSE)[0]
        shown = [headline["title"] for headline in json.loads(document)["headlines"]]
        assert len(shown) == len(set(shown)) == MAX_HEADLINES


async def test_a_bad_request_is_one_line_and_asks_nobody(valkey: ValkeyServer, database: Database) -> None:
    changes: tuple[tuple[dict[str, object], str], ...] = (
        ({"decision_id": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"}, "decision_id"),
        ({"trace_id": "short"}, "trace_id"),
        ({"signal": {}}, "signal: schema: missing"),
        ({"signal": []}, "signal: must be an object"),
        ({"stage": "before_llm"}, "stage"),
    )
    async with validation(valkey, database) as running:
        for change, says in changes:
            body = json.loads(new_request(new_signal()).model_dump_json()) | change
            response = await running.client.post("/v1/validations", json=body)
            assert response.status_code == 422
            assert says in response.json()["error"]["message"]
        assert await running.stored() == []


def test_the_schema_sent_and_the_one_checked_agree() -> None:
    checked = Verdict.model_json_schema()
    assert (
        set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(checked["properties"]) == set(checked["required"])
    )
    assert SCHEMA["additionalProperties"] is checked["additionalProperties"] is False


@given(st.lists(st.text(min_size=1, max_size=1000), min_size=1, max_size=10))
def test_reasons_are_lines_whatever_the_model_writes(reasons: list[str]) -> None:
    for line in Verdict(decision="deny", confidence=1.0, reasons=reasons).lines():
        assert line.isprintable()
        line.encode()


@pytest.mark.parametrize(
    ("variable", "bad", "says"),
    [
        ("TRADEWATCH_LLM_BASE_URL", "api.openai.com", "http:// or https://"),
        ("TRADEWATCH_LLM_BASE_URL", "https://u:hunter2@x/v1", "must not hold credentials"),
        ("TRADEWATCH_LLM_MODEL", "", "at least 1 character"),
        ("TRADEWATCH_LLM_API_KEY", "hunter2", "TRADEWATCH_LLM_API_KEY_FILE"),
        ("TRADEWATCH_LLM_TOKENS_PER_HOUR", "0", "greater than or equal to 1"),
        ("TRADEWATCH_VALIDATION_SECONDS", "inf", "finite"),
    ],
)
def test_a_bad_setting_is_one_line(
    variable: str, bad: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"TRADEWATCH_LLM_BASE_URL": "http://localhost/v1", "TRADEWATCH_LLM_MODEL": "m"}
    for name, text in {**good, variable: bad}.items():
        monkeypatch.setenv(name, text)
    assert main(["run", "llm-validator"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tradewatch run llm-validator: {variable}: ")
    assert says in error
    assert "hunter2" not in error
    assert error.count("\n") == 1
