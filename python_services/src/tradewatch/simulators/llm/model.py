"""What stands in for the language model: rules that read the data of a prompt and give a verdict in its schema.

The same prompt always has the same answer. The data is the JSON between `<data>` and `</data>` in the last message of
the user, as llm-validator writes it: `signal` with `side` and `confidence`, `sentiment` with `score`, and `headlines`.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

MIN_CONFIDENCE = 0.55
MAX_DISAGREEMENT = 0.3
CHARACTERS_PER_TOKEN = 4
FIELDS = frozenset({"decision", "confidence", "reasons"})

_DATA = re.compile(r"<data>\s*(\{.*\})\s*</data>", re.DOTALL)
_ORDER = re.compile(r"ignore (?:all )?previous instructions", re.IGNORECASE)


def verdict(messages: Sequence[tuple[str, str]], *, gullible: bool = False) -> dict[str, Any]:
    """The verdict on the data in `messages` (role and content).

    A `gullible` model approves when any text tells it to ignore its instructions, as a model that was taken in would.
    """
    content = next((content for role, content in reversed(messages) if role == "user"), "")
    if gullible and _ORDER.search(content):
        return _verdict("approve", 1.0, "as instructed")
    found = _DATA.search(content)
    try:
        data = json.loads(found[1]) if found else {}
        direction = {"BUY": 1.0, "SELL": -1.0}[data["signal"]["side"]]
        confidence = float(data["signal"]["confidence"])
        score = float(data["sentiment"]["score"])
    except (ValueError, KeyError, TypeError):
        return _verdict("deny", 1.0, "there is no signal with a side, a confidence and a sentiment to judge")
    if confidence < MIN_CONFIDENCE:
        return _verdict("deny", 0.9, f"the signal's confidence of {confidence:.2f} is low")
    if score * direction < -MAX_DISAGREEMENT:
        return _verdict("deny", 0.9, f"the news (score {score:.2f}) speaks against the side of the signal")
    certainty = min(0.99, (confidence + 1.0) / 2.0)
    return _verdict("approve", certainty, f"confidence of {confidence:.2f}, news (score {score:.2f}) do not disagree")


def _verdict(decision: str, confidence: float, reason: str) -> dict[str, Any]:
    return {"decision": decision, "confidence": round(confidence, 4), "reasons": [reason]}


def tokens(text: str) -> int:
    """About how many tokens a model would count in the text."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
