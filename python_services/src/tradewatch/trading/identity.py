"""The name of an order: one decision can only ever make one."""

from uuid import UUID, uuid5

# Never to be changed: an order that was sent under another name could be sent again.
_NAMESPACE = UUID("9d7b0c52-5f0e-4f0b-8a4e-1f1c6d1f6a57")


def client_order_id(decision_id: UUID) -> UUID:
    """The order's id at our end and at the exchange: UUIDv5 (RFC 9562, section 5.5) of the decision's id in text."""
    return uuid5(_NAMESPACE, str(decision_id))
