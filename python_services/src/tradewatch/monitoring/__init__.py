"""Services that watch the others (namespace crypto-monitoring)."""
