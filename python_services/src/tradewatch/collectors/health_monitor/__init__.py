"""The health monitor.

`feeds` keeps how fresh and complete each stream is, `heartbeat` sends itself messages through the bus, `dependencies`
asks the services whether they are ready, `components` holds the verdicts and tells changes, `service` wires them.
"""
