"""The table of key series: what is asked of Prometheus, and how a deviation in it is to be read.

A query may give several series, one for each set of labels; each is judged by itself. The services' own metrics are
taken from the job that scrapes every replica: with the job of the Services beside it everything would count twice.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_QUERIES = 100
MAX_FILE_BYTES = 256 * 1024
MAX_NAME_LENGTH = 200
# Of a quantile less than this is not known: its histogram's buckets end at factors of about two.
QUANTILE_SPREAD = 0.25
# Where events come about once a minute, so that a quantile of less is one event's.
RARE = "15m"

_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_PODS = 'job="kubernetes-pods-metrics"'

Values = NDArray[np.float64]


class SeriesQuery(BaseModel):
    """One query of the table.

    - `floor`, in the series' unit: on the linear scale the smallest deviation that counts as one; on the `log` scale
      what is added before the logarithm is taken, so that values far below it are all the same.
    - `log_spread`: on the `log` scale the smallest deviation that counts as one; 0.1 is a tenth of the value.
    - `direction`: which deviations count.
    - `checks`: `level` compares the value with what is usual; `flat` finds a value that has stopped moving.
    - `sparse`: it is usual that the series is not there at times, as a ratio is when nothing happens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=_NAME)
    group: str = Field(pattern=_NAME)
    query: str = Field(min_length=1, max_length=4000)
    floor: float = Field(gt=0, allow_inf_nan=False)
    scale: Literal["linear", "log"] = "linear"
    log_spread: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    direction: Literal["up", "down", "both"] = "up"
    checks: Annotated[tuple[Literal["level", "flat"], ...], Field(min_length=1, strict=False)] = ("level",)
    sparse: bool = False

    @property
    def min_scale(self) -> float:
        """The smallest spread that is believed, on the transformed scale."""
        return self.floor if self.scale == "linear" else self.log_spread

    def transform(self, values: Values) -> Values:
        """Values as they are compared; negative ones count as 0 on the logarithmic scale."""
        return values if self.scale == "linear" else np.log(np.maximum(values, 0.0) + self.floor)

    def restore(self, transformed: float) -> float:
        """The value, in the series' unit, that `transform` gives this for."""
        return transformed if self.scale == "linear" else float(np.exp(transformed)) - self.floor


def series_name(query: str, labels: Mapping[str, str]) -> str:
    """The name of one of a query's series: the query's, then the values of its labels in the order of their names."""
    return ":".join([query, *(labels[key] for key in sorted(labels) if key != "__name__")])[:MAX_NAME_LENGTH]


def _rate(metric: str, by: str, window: str = "5m", further: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_PODS}{further}}}[{window}]))"


def _mean(metric: str, by: str) -> str:
    """The worst replica's mean over five minutes: single peaks are usual in ages and lags."""
    return f"max by ({by}) (avg_over_time({metric}{{{_PODS}}}[5m]))"


def _quantile(metric: str, by: str = "", window: str = "5m", further: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.95, {_rate(f'{metric}_bucket', labels, window, further)})"


def _ratio(metric: str, bad: str) -> str:
    """The share of bad ones; nothing where there were none at all."""
    return f"{_rate(metric, '', RARE, f', {bad}')} / ({_rate(metric, '', RARE)} > 0)"


DEFAULT_SERIES: tuple[SeriesQuery, ...] = (
    SeriesQuery(
        name="data_rate",
        group="market_data",
        query=_rate("market_data_messages_total", "exchange, product_id"),
        floor=0.05,
        scale="log",
        direction="both",
    ),
    SeriesQuery(
        name="data_age_seconds",
        group="market_data",
        query=_mean("market_data_age_seconds", "exchange, product_id"),
        floor=2.0,
        scale="log",
    ),
    SeriesQuery(
        name="spread_ratio",
        group="market_data",
        query=_mean("market_data_spread_ratio", "product_id"),
        floor=0.0001,
        direction="both",
    ),
    SeriesQuery(
        name="mid_price",
        group="market_data",
        query=f"max by (product_id) (market_data_mid_price{{{_PODS}}})",
        floor=1.0,
        checks=("flat",),
    ),
    SeriesQuery(
        name="collector_errors_rate",
        group="market_data",
        query=_rate("collector_errors_total", "exchange"),
        floor=0.02,
    ),
    SeriesQuery(
        name="candle_delay_seconds",
        group="market_data",
        query=_quantile("candle_close_delay_seconds"),
        floor=0.1,
        scale="log",
        log_spread=QUANTILE_SPREAD,
    ),
    SeriesQuery(
        name="exchange_api_seconds",
        group="execution",
        query=_quantile("exchange_api_request_duration_seconds", "exchange", RARE, ', endpoint!="websocket"'),
        floor=0.05,
        scale="log",
        log_spread=QUANTILE_SPREAD,
        sparse=True,
    ),
    SeriesQuery(
        name="order_failure_ratio",
        group="execution",
        query=_ratio("trade_executions_total", 'status="rejected"'),
        floor=0.05,
        sparse=True,
    ),
    SeriesQuery(
        name="execution_seconds",
        group="execution",
        query=_quantile("trade_execution_duration_seconds", window=RARE),
        floor=0.1,
        scale="log",
        log_spread=QUANTILE_SPREAD,
        sparse=True,
    ),
    SeriesQuery(
        name="end_to_end_seconds",
        group="pipeline",
        query=_quantile("pipeline_end_to_end_duration_seconds", window=RARE),
        floor=0.1,
        scale="log",
        log_spread=QUANTILE_SPREAD,
        sparse=True,
    ),
    SeriesQuery(
        name="signal_rate",
        group="pipeline",
        query=_rate("trading_signals_total", "", RARE),
        floor=0.01,
        scale="log",
        direction="both",
    ),
    SeriesQuery(
        name="risk_denial_ratio",
        group="pipeline",
        query=_ratio("risk_decisions_total", 'decision="deny"'),
        floor=0.1,
        sparse=True,
    ),
    SeriesQuery(
        name="call_failures_rate",
        group="pipeline",
        query=_rate("pipeline_call_failures_total", "peer"),
        floor=0.02,
    ),
    SeriesQuery(
        name="llm_denial_ratio",
        group="llm",
        query=_ratio("llm_validations_total", 'decision="deny"'),
        floor=0.1,
        sparse=True,
    ),
    SeriesQuery(
        name="llm_errors_rate",
        group="llm",
        query=_rate("llm_errors_total", ""),
        floor=0.02,
    ),
    SeriesQuery(
        name="llm_seconds",
        group="llm",
        query=_quantile("llm_validation_duration_seconds", window=RARE),
        floor=0.1,
        scale="log",
        log_spread=QUANTILE_SPREAD,
        sparse=True,
    ),
    SeriesQuery(
        name="stream_lag_messages",
        group="bus",
        query=_mean("stream_lag_messages", "group"),
        floor=5.0,
        scale="log",
    ),
    SeriesQuery(
        name="oldest_pending_seconds",
        group="bus",
        query=_mean("stream_oldest_pending_seconds", "group"),
        floor=2.0,
        scale="log",
    ),
    SeriesQuery(
        name="reader_lag_seconds",
        group="bus",
        query=_mean("stream_reader_lag_seconds", "service"),
        floor=2.0,
        scale="log",
    ),
    SeriesQuery(
        name="stream_write_rate",
        group="bus",
        query=_rate("stream_writes_total", "service"),
        floor=0.05,
        scale="log",
        direction="both",
    ),
    SeriesQuery(
        name="heartbeat_seconds",
        group="bus",
        query=_quantile("bus_heartbeat_duration_seconds"),
        floor=0.02,
        scale="log",
        log_spread=QUANTILE_SPREAD,
    ),
)

_TABLE: TypeAdapter[dict[str, list[SeriesQuery]]] = TypeAdapter(dict[str, list[SeriesQuery]])


def check_table(table: tuple[SeriesQuery, ...]) -> tuple[SeriesQuery, ...]:
    """The table, if its names are unique and it is of a bounded size. Raises ValueError."""
    if not 1 <= len(table) <= MAX_QUERIES:
        raise ValueError(f"name 1 to {MAX_QUERIES} series, got {len(table)}")
    names = [query.name for query in table]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the series {name} is named twice")
    return table


def load_table(path: Path) -> tuple[SeriesQuery, ...]:
    """A table from a TOML file of `[[series]]` entries, which takes the place of the built-in one.

    Raises:
        ValueError: with one line that says what is wrong and in which entry.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        raw = tomllib.loads(content.decode())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: no TOML: {error}") from None
    if set(raw) != {"series"}:
        raise ValueError(f"{path}: must hold [[series]] entries and nothing else")
    try:
        return check_table(tuple(_TABLE.validate_python(raw)["series"]))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{path}: {where}: {problem['msg']}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
