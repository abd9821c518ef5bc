"""Typed settings from `TRADEWATCH_*` environment variables, with secrets from mounted files.

A secret field `x` is given as a file: `TRADEWATCH_X_FILE` holds its path. The secret itself in an environment
variable is refused, because environments end up in process listings, crash reports and `kubectl describe`.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "TRADEWATCH_"
MAX_SECRET_BYTES = 64 * 1024
MAX_PRODUCTS = 100
HTTP = ("http", "https")
_PRODUCT_ID = re.compile(r"[A-Z0-9]{1,16}-[A-Z0-9]{1,16}")


class SettingsError(Exception):
    """The environment does not give usable settings; `lines` has one line per problem, each naming its variable."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _split_products(value: object) -> object:
    """Turn `BTC-USD, ETH-USD` into a tuple and check it; anything that is not a string is pydantic's to judge."""
    if not isinstance(value, str):
        return value
    products = tuple(part.strip() for part in value.split(",") if part.strip())
    if not products:
        raise ValueError("name at least one product, such as BTC-USD,ETH-USD")
    if len(products) > MAX_PRODUCTS:
        raise ValueError(f"at most {MAX_PRODUCTS} products, got {len(products)}")
    for product in products:
        if not _PRODUCT_ID.fullmatch(product):
            raise ValueError(f"{product[:40]!r} is not a product id like BTC-USD")
    if len(set(products)) != len(products):
        raise ValueError("a product is named twice")
    return products


ProductIds = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_products)]


def _split_intervals(value: object) -> object:
    """Turn `1, 60` into a rising tuple of whole seconds, each a multiple of the first."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("name at least one interval, such as 1,60")
    for part in parts:
        if not (part.isascii() and part.isdigit() and len(part) <= 5 and 1 <= int(part) <= 86_400):
            raise ValueError(f"{part[:40]!r} is not a number of seconds from 1 to 86400")
    intervals = tuple(sorted({int(part) for part in parts}))
    if len(intervals) != len(parts):
        raise ValueError("an interval is named twice")
    if any(interval % intervals[0] for interval in intervals):
        raise ValueError(f"every interval must be a multiple of the shortest, {intervals[0]}")
    return intervals


IntervalsSeconds = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_intervals)]


def duration(default: float, most: float, description: str, *, least: float | None = None, above: float = 0) -> float:
    """A field of a finite number of seconds: above `above`, or from `least` on, and at most `most`."""
    lower = above if least is None else None
    value: float = Field(default=default, gt=lower, ge=least, le=most, allow_inf_nan=False, description=description)
    return value


class CommonSettings(BaseSettings):
    """What every service takes.

    `http_port` 0 means any free port; durations are in seconds.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=False, extra="ignore", frozen=True)

    http_port: int = Field(default=8080, ge=0, le=65535, description="port of /metrics, /healthz and /readyz")
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = Field(default="info", description="debug, info, warning or error")
    drain_seconds: float = duration(10.0, 300, "how long a stopping service may finish its work")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings passes all by name)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read explicit arguments, secret files, then the environment; nothing is read from `.env` files."""
        return init_settings, _SecretFiles(settings_cls), env_settings


def split_url(value: str) -> SplitResult:
    """The parts of a URL whose port is a number. Raises ValueError."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def require_url(value: str, schemes: Sequence[str], *, query: bool = False, note: str = "") -> None:
    """A URL of one of the schemes, with a host and without credentials, and without a query unless it may have one.

    Raises:
        ValueError: what it must be, with `note` behind it, or what it must not hold.
    """
    parts = split_url(value)
    if parts.scheme not in schemes or not parts.hostname:
        article = "an" if schemes[0].startswith("h") else "a"
        raise ValueError(f"must be {article} {' or '.join(f'{each}://' for each in schemes)} URL with a host{note}")
    credentials = parts.username or parts.password
    if query and credentials:
        raise ValueError("must not hold credentials")
    if not query and (credentials or parts.query or parts.fragment):
        raise ValueError("must hold neither credentials nor a query")


def http_url(value: object) -> object:
    """A validator of fields: an HTTP URL with a host and without credentials."""
    if isinstance(value, str):
        require_url(value, HTTP, query=True)
    return value


def api_url(value: object) -> object:
    """A validator of fields: what stands before an API's paths, so neither credentials nor a query."""
    if isinstance(value, str):
        require_url(value, HTTP)
    return value


def _valkey_url(value: object) -> object:
    if isinstance(value, str):
        parts = split_url(value)
        if parts.scheme not in ("valkey", "valkeys") or not parts.hostname:
            raise ValueError("must be a valkey:// or valkeys:// URL with a host")
        if parts.password:
            raise ValueError(f"must not hold the password; give it with {PREFIX}VALKEY_PASSWORD_FILE")
        database = parts.path.strip("/")
        if database and not (database.isascii() and database.isdigit()):
            raise ValueError("the path must be a database number")
    return value


class ValkeySettings(CommonSettings):
    """What a service on the bus takes besides."""

    valkey_url: Annotated[str, BeforeValidator(_valkey_url)] = Field(
        default="valkey://default@localhost:6379/0", description="the bus"
    )
    valkey_password: SecretStr | None = Field(default=None, description="file that holds the bus's password")


class StreamSettings(ValkeySettings):
    """What who writes market data or what is made of it takes."""

    stream_max_length: int = Field(
        default=100_000, ge=100, le=100_000_000, description="entries that each stream keeps, about"
    )


class StreamWriterSettings(StreamSettings):
    """What a service takes that writes to the bus through a `StreamWriter`."""

    buffer_max_entries: int = Field(
        default=20_000,
        ge=100,
        le=10_000_000,
        description="entries kept in memory while Valkey is away; then the oldest go",
    )


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads every secret field from the file that its `*_FILE` variable names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(variable_name(field_name, field))
        return (_read_secret(Path(path)) if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            if is_secret(field):
                value, _, _ = self.get_field_value(field, name)
                if value is not None:
                    found[name] = value
        return found


def _read_secret(path: Path) -> str:
    """The file's text without the newline that editors and `echo` leave at its end."""
    with path.open("rb") as file:
        content = file.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"larger than {MAX_SECRET_BYTES} bytes")
    return content.decode().rstrip("\r\n")


def is_secret(field: FieldInfo) -> bool:
    """Whether a settings field holds a secret (`SecretStr`, optional or not)."""
    annotation = field.annotation
    return annotation is SecretStr or (get_origin(annotation) is not None and SecretStr in get_args(annotation))


def variable_name(field_name: str, field: FieldInfo) -> str:
    """The environment variable that sets a field; for a secret the one that names its file."""
    return f"{PREFIX}{field_name.upper()}{'_FILE' if is_secret(field) else ''}"


SettingsT = TypeVar("SettingsT", bound=CommonSettings)


def load(settings_class: type[SettingsT]) -> SettingsT:
    """Read and check the settings of a service from the environment.

    Raises:
        SettingsError: with one line per problem. Lines never hold a secret, nor a rejected value that could be one.
    """
    lines = list(_secret_problems(settings_class, os.environ))
    if lines:
        raise SettingsError(lines)
    try:
        return settings_class()
    except ValidationError as error:
        raise SettingsError([_line(settings_class, problem) for problem in error.errors()]) from None


def _secret_problems(settings_class: type[CommonSettings], environment: Mapping[str, str]) -> Iterator[str]:
    for name, field in settings_class.model_fields.items():
        if not is_secret(field):
            continue
        by_file = variable_name(name, field)
        direct = by_file.removesuffix("_FILE")
        if direct in environment:
            yield f"{direct}: secrets are not taken from the environment; name a file that holds it in {by_file}"
        path = environment.get(by_file)
        if path is None:
            continue
        try:
            if not _read_secret(Path(path)):
                yield f"{by_file}: the file {path} is empty"
        except OSError as error:
            yield f"{by_file}: cannot read {path or 'an empty path'}: {error.strerror}"
        except ValueError as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            yield f"{by_file}: cannot use {path!r}: {reason}"


def _line(settings_class: type[CommonSettings], problem: Mapping[str, Any]) -> str:
    location = problem["loc"]
    message = " ".join(str(problem["msg"]).removeprefix("Value error, ").split())
    if not location:
        return message
    name = str(location[0])
    field = settings_class.model_fields.get(name)
    variable = variable_name(name, field) if field else f"{PREFIX}{name.upper()}"
    if problem["type"] == "missing":
        message = "is required"
    return f"{variable}: {message}"


def unknown_variables(settings_class: type[CommonSettings]) -> list[str]:
    """`TRADEWATCH_*` variables that are set but that this service does not read: most often a typing error."""
    known = {variable_name(name, field) for name, field in settings_class.model_fields.items()}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def describe(settings_class: type[CommonSettings]) -> str:
    """A plain text table of a service's variables with their defaults, for `--help`."""
    rows = []
    for name, field in settings_class.model_fields.items():
        if field.is_required():
            default = "required"
        elif is_secret(field) or field.default in (None, ""):
            default = "optional"
        elif isinstance(field.default, tuple):
            default = f"default {','.join(map(str, field.default))}"
        else:
            default = f"default {field.default}"
        rows.append((variable_name(name, field), f"{field.description} ({default})"))
    width = max(len(variable) for variable, _ in rows)
    return "\n".join(f"  {variable:<{width}}  {text}" for variable, text in rows)
