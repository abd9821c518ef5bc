"""The codes of a validation's outcome."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a signal was approved or denied."""

    APPROVED = "approved"
    # The model answered, and the answer or the checks on it say no.
    DENIED_BY_MODEL = "denied_by_model"
    LOW_CONFIDENCE = "low_confidence"
    CONTRADICTS_SENTIMENT = "contradicts_sentiment"
    # There was nothing to ask.
    EXPIRED = "expired"
    NO_SENTIMENT = "no_sentiment"
    # It could not be asked, or what it answered cannot be used.
    BUS_UNAVAILABLE = "bus_unavailable"
    BUDGET_EXHAUSTED = "budget_exhausted"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    REQUEST_REJECTED = "request_rejected"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    INVALID_OUTPUT = "invalid_output"


# Denials that are errors of the validation rather than judgements about the signal.
ERRORS = (
    Reason.BUS_UNAVAILABLE,
    Reason.BUDGET_EXHAUSTED,
    Reason.TIMEOUT,
    Reason.UNREACHABLE,
    Reason.RATE_LIMITED,
    Reason.SERVER_ERROR,
    Reason.REQUEST_REJECTED,
    Reason.REFUSED,
    Reason.TRUNCATED,
    Reason.INVALID_OUTPUT,
)
