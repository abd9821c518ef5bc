"""llm-validator: a language model's second opinion on a signal, which can only ever stop it.

`evidence` gathers what the model is shown, `prompt` writes it down, `model` asks, `verdict` checks the answer,
`validator` makes the decision of it, `store` keeps that, `service` wires them.
"""
