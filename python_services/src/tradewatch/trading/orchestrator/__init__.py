"""trade-orchestrator: carries each signal through risk, language model, risk again and execution to one final state."""
