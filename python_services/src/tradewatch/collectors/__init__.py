"""Services that bring market data in (namespace crypto-collectors)."""
