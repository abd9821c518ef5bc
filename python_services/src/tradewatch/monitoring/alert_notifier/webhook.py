"""Alertmanager's webhook, version 4 (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).

Fields that are not read here are let be: newer Alertmanagers add some.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

# An alert without an end has Go's zero time there.
_NO_TIME_YEAR = 1
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
UNKNOWN = "none"


def _clean(text: str) -> str:
    """PostgreSQL stores no NUL, and a terminal must not be steered by a label."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


Text = Annotated[str, AfterValidator(_clean)]
# An alert in one state: its fingerprint, when it began, its status.
Key = tuple[str, datetime, str]


class Alert(BaseModel):
    """One alert of a webhook: `fingerprint` is the hash of its labels, the same for as long as they are."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    status: Literal["firing", "resolved"]
    labels: dict[Text, Text]
    annotations: dict[Text, Text] = Field(default_factory=dict)
    starts_at: AwareDatetime = Field(alias="startsAt")
    ends_at: AwareDatetime | None = Field(alias="endsAt", default=None)
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")

    @model_validator(mode="after")
    def _has_an_end(self) -> "Alert":
        if self.status == "resolved" and self.ended is None:
            raise ValueError("a resolved alert needs endsAt")
        return self

    @property
    def ended(self) -> datetime | None:
        """When it was over; None while it fires, where Alertmanager writes when it would give up waiting."""
        if self.status == "firing" or self.ends_at is None or self.ends_at.year == _NO_TIME_YEAR:
            return None
        return self.ends_at

    @property
    def key(self) -> Key:
        """What tells it from every other change of state."""
        return (self.fingerprint, self.starts_at, self.status)

    @property
    def name(self) -> str:
        """Of the rule that made it."""
        return self.labels.get("alertname") or UNKNOWN

    @property
    def team(self) -> str:
        """Whose it is."""
        return self.labels.get("team") or UNKNOWN

    @property
    def severity(self) -> str:
        """`critical`, `warning`, `info`, or what a rule of the user's own says."""
        return self.labels.get("severity") or UNKNOWN


class Webhook(BaseModel):
    """The body: a group of alerts. `truncatedAlerts` are those that `max_alerts` left out."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    version: Literal["4"]
    alerts: list[Alert] = Field(min_length=1)
    truncated_alerts: int = Field(alias="truncatedAlerts", default=0, ge=0)
