"""The services that decide and trade: signals, risk, validation by a language model, execution, and their conductor."""
