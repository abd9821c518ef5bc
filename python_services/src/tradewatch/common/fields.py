"""The text fields of stream entries: how times and numbers are written, and how they are read back.

Every error names its field.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

# No price or size on any exchange is near these; beyond them a number is an error or an attack on whoever formats it.
MIN_NUMBER = Decimal("1e-18")
MAX_NUMBER = Decimal("1e18")
MAX_NUMBER_CHARACTERS = 64


class EventDecodeError(ValueError):
    """A stream entry is not a market data event; the message names the field."""


def format_time(time: datetime) -> str:
    """ISO 8601 in UTC with microseconds and `Z`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """A point in time, in UTC; digits beyond microseconds are cut off.

    Raises:
        ValueError: not ISO 8601, without a time zone, or outside the years that Python knows.
    """
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("without a time zone")
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


def parse_number(text: str, allow_zero: bool = False) -> Decimal:
    """A finite decimal within MIN_NUMBER..MAX_NUMBER (or zero, where allowed).

    Raises:
        ValueError: not a number, NaN or infinite, zero or negative, out of range, or absurdly long.
    """
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError("number is too long")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not number.is_finite():
        raise ValueError("not a finite number")
    if number == 0 and allow_zero:
        return Decimal(0)
    if number <= 0:
        raise ValueError("zero or negative")
    if not MIN_NUMBER <= number <= MAX_NUMBER:
        raise ValueError("number out of range")
    return number


class FieldReader:
    """Typed access to the fields of a stream entry; every failure names the field."""

    def __init__(self, fields: Mapping[bytes, bytes] | Mapping[str, str]) -> None:
        self._fields: dict[str, str] = {}
        try:
            for name, value in fields.items():
                self._fields[_text(name)] = _text(value)
        except UnicodeDecodeError:
            raise EventDecodeError("entry: not UTF-8 text") from None

    def text(self, name: str) -> str:
        """A field that must be there and not be empty."""
        value = self._fields.get(name)
        if not value:
            raise EventDecodeError(f"{name}: missing")
        return value

    def integer(self, name: str) -> int:
        """A whole number, zero or more."""
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise EventDecodeError(f"{name}: not a whole number")
        return int(text)

    def positive(self, name: str) -> Decimal:
        """A price or size above zero."""
        return self._number(name, self.text(name), allow_zero=False)

    def optional_positive(self, name: str) -> Decimal | None:
        """The same, or None where the field is absent."""
        return self._number(name, self._fields[name], allow_zero=False) if name in self._fields else None

    def size(self, name: str) -> Decimal:
        """A number that may be zero."""
        return self._number(name, self.text(name), allow_zero=True)

    def optional_size(self, name: str) -> Decimal | None:
        """The same, or None where the field is absent."""
        return self._number(name, self._fields[name], allow_zero=True) if name in self._fields else None

    def time(self, name: str) -> datetime:
        """A point in time, in UTC."""
        text = self.text(name)
        try:
            return parse_time(text)
        except ValueError as error:
            raise EventDecodeError(f"{name}: {error}") from None

    def names(self) -> frozenset[str]:
        """The fields that are there."""
        return frozenset(self._fields)

    def words(self, name: str) -> tuple[str, ...]:
        """A comma separated list; empty where the field is absent or empty."""
        return tuple(word for word in self._fields.get(name, "").split(",") if word)

    def finite(self, name: str) -> float:
        """A finite float, of either sign, within MAX_NUMBER."""
        text = self.text(name)
        try:
            number = float(text) if len(text) <= MAX_NUMBER_CHARACTERS else math.nan
        except ValueError:
            raise EventDecodeError(f"{name}: not a number") from None
        if not abs(number) <= float(MAX_NUMBER):
            raise EventDecodeError(f"{name}: not a finite number in range")
        return number

    @staticmethod
    def _number(name: str, text: str, allow_zero: bool) -> Decimal:
        try:
            return parse_number(text, allow_zero)
        except ValueError as error:
            raise EventDecodeError(f"{name}: {error}") from None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
