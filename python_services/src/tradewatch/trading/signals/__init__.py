"""signal-generator: a classifier of the next move, and the signals that it is sure enough of."""
