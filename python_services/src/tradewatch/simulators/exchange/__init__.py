"""The exchange simulator.

`prices` is the price process, `market` turns it into ticks, `coinbase_websocket` and `kraken_websocket` speak the
exchanges' feeds about them, `feed_server` has what these share, `faults` what can be switched on by HTTP, `service`
wires them. A further protocol is a class with the methods of `feed_server.Feed`.
"""
