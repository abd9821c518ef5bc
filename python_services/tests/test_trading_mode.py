"""Paper or live: nothing trades real money that was not told to, in full."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tradewatch.common import settings
from tradewatch.trading.mode import ExchangeKeySettings

Load = Callable[[dict[str, str]], ExchangeKeySettings]

LIVE = {"PAPER": "false", "LIVE": "true", "DAILY_LOSS_LIMIT": "500", "EXCHANGE_KEY_NAME_FILE": "name"}
ALL = LIVE | {"EXCHANGE_PRIVATE_KEY_FILE": "key"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    def with_variables(variables: dict[str, str]) -> ExchangeKeySettings:
        for name, text in variables.items():
            if name.endswith("_FILE"):
                (tmp_path / text).write_text("private-text")
                text = str(tmp_path / text)
            monkeypatch.setenv(f"TRADEWATCH_{name}", text)
        return settings.load(ExchangeKeySettings)

    return with_variables


def test_paper_is_the_default(load: Load) -> None:
    loaded = load({})
    assert loaded.paper
    assert not loaded.live


def test_live_with_all_of_it(load: Load) -> None:
    loaded = load(ALL)
    assert loaded.live
    assert not loaded.paper


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"LIVE": None}, ["LIVE"]),
        ({"LIVE": "false"}, ["LIVE"]),
        ({"PAPER": None}, ["LIVE"]),
        ({"PAPER": "true"}, ["LIVE"]),
        ({"DAILY_LOSS_LIMIT": None}, ["DAILY_LOSS_LIMIT"]),
        ({"DAILY_LOSS_LIMIT": "0"}, ["DAILY_LOSS_LIMIT"]),
        ({"DAILY_LOSS_LIMIT": "-1"}, ["DAILY_LOSS_LIMIT"]),
        ({"DAILY_LOSS_LIMIT": "NaN"}, ["DAILY_LOSS_LIMIT"]),
        ({"DAILY_LOSS_LIMIT": "Infinity"}, ["DAILY_LOSS_LIMIT"]),
        ({"PAPER": "perhaps"}, ["PAPER"]),
        ({"EXCHANGE_KEY_NAME_FILE": None}, ["EXCHANGE_KEY_NAME_FILE"]),
        ({"EXCHANGE_PRIVATE_KEY_FILE": None}, ["EXCHANGE_PRIVATE_KEY_FILE"]),
        ({"PAPER": None, "LIVE": None, "EXCHANGE_PRIVATE_KEY_FILE": None}, ["EXCHANGE_PRIVATE_KEY_FILE"]),
        (
            dict.fromkeys(ALL.keys() - {"PAPER"}),
            ["LIVE", "DAILY_LOSS_LIMIT", "EXCHANGE_KEY_NAME_FILE", "EXCHANGE_PRIVATE_KEY_FILE"],
        ),
    ],
)
def test_a_start_that_lacks_something_is_refused_one_line_each(
    load: Load, change: dict[str, str | None], named: list[str]
) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        load({name: text for name, text in {**ALL, **change}.items() if text is not None})
    assert [line.split(":")[0] for line in refused.value.lines] == [f"TRADEWATCH_{name}" for name in named]
    assert "private-text" not in str(refused.value)
