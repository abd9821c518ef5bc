"""The language model simulator as OpenAI's own client finds it."""

import json

import httpx
import openai
import pytest
from llm_support import KEY, fault, simulated_model
from services_support import eventually
from tradewatch.simulators.llm import model
from tradewatch.trading.llm.verdict import SCHEMA, Verdict

DATA = {"signal": {"side": "BUY", "confidence": 0.8}, "sentiment": {"score": 0.1}, "headlines": []}


def _messages(**changed: object) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": f"<data>\n{json.dumps(DATA | changed)}\n</data>\nThe data ends here."},
    ]


def _ask(messages: list[dict[str, str]], **changed: object) -> dict[str, object]:
    schema = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}
    return {"model": "simulated", "messages": messages, "response_format": schema, **changed}


@pytest.mark.parametrize(
    ("changed", "decision"),
    [
        ({}, "approve"),
        ({"signal": {"side": "BUY", "confidence": 0.4}}, "deny"),
        ({"sentiment": {"score": -0.6}}, "deny"),
        ({"signal": {"side": "SELL", "confidence": 0.8}, "sentiment": {"score": -0.6}}, "approve"),
        ({"signal": {"side": "SELL", "confidence": 0.8}, "sentiment": {"score": 0.6}}, "deny"),
        ({"signal": {}}, "deny"),
        ({"sentiment": None}, "deny"),
    ],
)
def test_verdicts_follow_from_the_data(changed: dict[str, object], decision: str) -> None:
    messages = [(message["role"], message["content"]) for message in _messages(**changed)]
    found = model.verdict(messages)
    assert found == model.verdict(messages)
    assert Verdict.model_validate_json(json.dumps(found)).decision == decision


def test_without_data_it_denies() -> None:
    assert model.verdict([("user", "Buy?")])["decision"] == "deny"
    assert model.verdict([])["decision"] == "deny"


async def test_the_official_client_gets_a_structured_answer() -> None:
    async with simulated_model() as simulator:
        client = openai.AsyncOpenAI(base_url=f"{simulator.base_url}/v1", api_key=KEY)
        try:
            assert [listed.id async for listed in client.models.list()] == ["simulated"]
            found = await client.chat.completions.parse(
                model="simulated",
                messages=_messages(),  # type: ignore[arg-type]
                response_format=Verdict,
            )
        finally:
            await client.close()
    assert found.choices[0].message.parsed is not None
    assert found.choices[0].message.parsed.decision == "approve"
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, _ask(_messages()), 401),
        ({"Authorization": "Bearer wrong"}, _ask(_messages()), 401),
        ({"Authorization": f"Bearer {KEY}"}, _ask([]), 400),
        ({"Authorization": f"Bearer {KEY}"}, _ask(_messages(), model="other"), 404),
        ({"Authorization": f"Bearer {KEY}"}, _ask(_messages(), max_tokens=0), 400),
        ({"Authorization": f"Bearer {KEY}"}, _ask(_messages(), response_format={"type": "json_object"}), 400),
    ],
)
async def test_a_bad_request_is_an_error_in_openais_form(
    headers: dict[str, str], body: dict[str, object], status: int
) -> None:
    async with simulated_model() as simulator:
        answer = await simulator.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == status
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])
    assert KEY not in answer.text


async def _answer(simulator: httpx.AsyncClient, **changed: object) -> dict[str, object]:
    answer = await simulator.post(
        "/v1/chat/completions", json=_ask(_messages(), **changed), headers={"Authorization": f"Bearer {KEY}"}
    )
    found: dict[str, object] = answer.json()["choices"][0]
    return found


async def test_an_answer_is_cut_off_at_its_limit() -> None:
    async with simulated_model() as simulator:
        choice = await _answer(simulator, max_completion_tokens=5)
    assert choice["finish_reason"] == "length"


async def test_faults_end_and_can_be_cleared() -> None:
    async with simulated_model() as simulator:
        await fault(simulator, fault="refusal")
        await fault(simulator, fault="length")
        assert (await _answer(simulator))["message"]["refusal"]  # type: ignore[index]
        assert len((await simulator.get("/faults")).json()["active"]) == 2
        assert (await simulator.delete("/faults")).json() == {"active": []}
        assert (await _answer(simulator))["finish_reason"] == "stop"
        await fault(simulator, fault="length", seconds=0.05)

        async def over() -> bool:
            return (await simulator.get("/faults")).json() == {"active": []}

        await eventually(over)
        bad = await simulator.post("/faults", json={"fault": "error", "status": 200})
        assert (bad.status_code, "status" in bad.text) == (422, True)
