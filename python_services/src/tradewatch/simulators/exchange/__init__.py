"""The exchange simulator.

`prices` is the price process, `market` turns it into ticks, `coinbase_websocket` speaks one exchange's feed about
them, `faults` holds what is switched on by HTTP, `service` wires these. A further protocol is a module that listens
to the same `Market`.
"""
