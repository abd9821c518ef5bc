"""trade-executor: the one service that sends orders to the exchange."""
