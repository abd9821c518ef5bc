"""risk-manager: what may be ordered, how much of it, and the kill switch."""
