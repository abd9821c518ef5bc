"""`tradewatch replay` on a real Valkey."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aggregation_support import ticker, trade
from services_support import PASSWORD, ValkeyServer, stored
from tradewatch.cli import main
from tradewatch.common.events import encode

RECORDED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def on_the_bus(valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ValkeyServer:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    monkeypatch.setenv("TRADEWATCH_VALKEY_URL", valkey.url)
    monkeypatch.setenv("TRADEWATCH_VALKEY_PASSWORD_FILE", str(password))
    return valkey


def _recording(directory: Path, *further: str) -> Path:
    events = [trade(RECORDED, 1), ticker(RECORDED + timedelta(seconds=50)), trade(RECORDED + timedelta(seconds=100), 2)]
    file = directory / "recording.jsonl"
    file.write_text("\n".join([*(json.dumps(encode(event)) for event in events), *further]) + "\n")
    return file


async def _replay(*arguments: str, text: str | None = None) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "tradewatch", "replay", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


async def test_events_come_at_their_pace_as_of_now_and_bad_lines_are_named(
    on_the_bus: ValkeyServer, tmp_path: Path
) -> None:
    good = json.dumps(encode(trade(RECORDED + timedelta(seconds=100), 3)))
    bad = ["{", "[]", '{"schema": 1}', good.replace('"price": "100"', '"price": "NaN"'), "9" * 20_000, "", good]
    began = datetime.now(UTC)
    code, out, errors = await _replay(str(_recording(tmp_path, *bad)), "--speed", "100")
    assert code == 1
    assert out == "4 events written, 5 lines left out\n"
    assert [line.removeprefix("tradewatch replay: line ") for line in errors.splitlines()] == [
        "4: is not JSON",
        "5: is not a JSON object",
        "6: schema: is not text",
        "7: price: not a finite number",
        "8: longer than 16384 characters",
    ]
    found = await stored(on_the_bus, "BTC-USD")
    times = [event.received_time for event in found]
    assert began <= times[0] <= datetime.now(UTC)
    assert [time - times[0] for time in times] == [timedelta(seconds=seconds) for seconds in (0, 0.5, 1, 1)]


async def test_a_stream_in_use_is_left_alone(on_the_bus: ValkeyServer, tmp_path: Path) -> None:
    file = _recording(tmp_path)
    code, _, _ = await _replay("-", "--speed", "10000", text=file.read_text())
    assert code == 0
    code, _, errors = await _replay(str(file), "--speed", "10000")
    assert code == 1
    assert errors.startswith("tradewatch replay: market_data:coinbase:BTC-USD is being written now")
    assert len(errors.splitlines()) == 1
    assert len(await stored(on_the_bus, "BTC-USD")) == 3
    assert (await _replay(str(file), "--speed", "10000", "--force"))[0] == 0
    on_the_bus.stop()
    code, _, errors = await _replay(str(file))
    assert (code, errors) == (1, "tradewatch replay: the bus does not take entries: ConnectionError\n")


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["replay", str(tmp_path / "absent")]) == 2
    assert (
        capsys.readouterr().err == f"tradewatch replay: cannot read {tmp_path / 'absent'}: No such file or directory\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["replay", "-", "--speed", "nan"])
    assert ended.value.code == 2
    assert "must be a number above 0" in capsys.readouterr().err
