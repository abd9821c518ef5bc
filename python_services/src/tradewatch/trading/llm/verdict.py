"""The model's verdict: the schema that it is asked to answer in, and the check of what it answered."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_REASONS = 10
MAX_REASON_CHARACTERS = 1000
MAX_STORED_CHARACTERS = 300

# Structured output in strict mode (https://platform.openai.com/docs/guides/structured-outputs): every property
# required, no others, and no bounds, which not every endpoint takes. Bounds are checked in `Verdict`.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "deny"], "description": "deny whenever in doubt"},
        "confidence": {"type": "number", "description": "how sure of the decision, 0 to 1"},
        "reasons": {"type": "array", "items": {"type": "string"}, "description": "one to three short sentences"},
    },
    "required": ["decision", "confidence", "reasons"],
    "additionalProperties": False,
}


class Verdict(BaseModel):
    """What the model answered. Checked here, whatever the endpoint says of its own checks."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    decision: Literal["approve", "deny"]
    confidence: Annotated[float, Field(ge=0, le=1)]
    reasons: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON_CHARACTERS)]],
        Field(min_length=1, max_length=MAX_REASONS),
    ]

    def lines(self) -> tuple[str, ...]:
        """The reasons, each one line of plain characters that can be stored and shown."""
        return tuple(_line(reason) for reason in self.reasons)


def _line(text: str) -> str:
    plain = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    return " ".join(plain.split())[:MAX_STORED_CHARACTERS]
