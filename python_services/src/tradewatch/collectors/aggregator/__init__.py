"""market-data-aggregator: candles and quotes over all exchanges."""
