"""Who is told what: receivers, each an Apprise URL, and routes to them by team and severity.

The document is JSON (docs/services.md) and holds secrets. What is wrong with it is told without any value of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tradewatch.common.api import describe
from tradewatch.monitoring.alert_notifier.sender import Sender, UnusableUrl

MAX_RECEIVERS = 50


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Receiver(_Strict):
    """A name, which metrics and logs show, and where notifications go."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    url: SecretStr

    def sender(self) -> Sender:
        """What sends there. Raises ValueError, which names the receiver alone."""
        try:
            return Sender(self.name, self.url.get_secret_value())
        except UnusableUrl:
            raise ValueError(f"receiver {self.name}: Apprise cannot use its URL") from None


class Route(_Strict):
    """Alerts of this team and severity, each any where it is not given, go to these receivers."""

    team: str | None = None
    severity: str | None = None
    receivers: tuple[str, ...] = Field(min_length=1, strict=False)

    def takes(self, team: str, severity: str) -> bool:
        """Whether an alert goes this way."""
        return self.team in (None, team) and self.severity in (None, severity)


class ReceiverList(_Strict):
    """Receivers alone, without routes to them."""

    receivers: tuple[Receiver, ...] = Field(min_length=1, max_length=MAX_RECEIVERS, strict=False)


class _Document(ReceiverList):
    routes: tuple[Route, ...] = Field(default=(), strict=False)
    default: tuple[str, ...] = Field(min_length=1, strict=False)
    escalation: tuple[str, ...] = Field(default=(), strict=False)


@dataclass(frozen=True)
class Routing:
    """The first route that takes an alert is the one; `default` is for those that none takes."""

    senders: dict[str, Sender]
    routes: tuple[Route, ...]
    default: tuple[str, ...]
    escalation: tuple[str, ...]

    def receivers(self, team: str, severity: str) -> tuple[str, ...]:
        """Who is told of an alert."""
        return next((route.receivers for route in self.routes if route.takes(team, severity)), self.default)


def parse_routing(text: str) -> Routing:
    """The document as it is used. Raises ValueError with one line that holds no value of it but receivers' names."""
    try:
        document = _Document.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    senders = make_senders(document.receivers)
    named = [*document.default, *document.escalation, *(name for route in document.routes for name in route.receivers)]
    if any(name not in senders for name in named):
        # Not the name itself: a URL written in its place is a secret.
        raise ValueError(f"routes, default or escalation name a receiver that is none of {', '.join(sorted(senders))}")
    # A receiver named twice is told once.
    return Routing(senders, document.routes, document.default, tuple(dict.fromkeys(document.escalation)))


def parse_receivers(text: str) -> dict[str, Sender]:
    """Senders of a document that is receivers alone. Raises ValueError as `parse_routing`."""
    try:
        document = ReceiverList.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    return make_senders(document.receivers)


def make_senders(receivers: Sequence[Receiver]) -> dict[str, Sender]:
    """By name. Raises ValueError where a name is there twice or a URL cannot be used."""
    senders = {receiver.name: receiver.sender() for receiver in receivers}
    if len(senders) < len(receivers):
        raise ValueError("two receivers have one name")
    return senders
