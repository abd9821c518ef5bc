"""The schema's history, one module a step, run by `tradewatch database upgrade`."""
