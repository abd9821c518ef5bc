"""technical-indicators: indicators of every closed candle."""
