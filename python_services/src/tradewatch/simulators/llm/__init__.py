"""The language model simulator: `model` makes its answers, `completions` serves them, `faults` breaks that."""
