"""Tradewatch's services: market data collection, trading, monitoring, and the simulators they are tried on."""

__version__ = "0.1.0"
