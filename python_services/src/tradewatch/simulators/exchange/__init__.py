"""The exchange simulator.

`prices` is the price process, `market` turns it into ticks, `history` keeps them. `matching` fills orders (`orders`,
`order_entry`) against the `book` of each of the `products` and keeps the `accounts`. `coinbase_websocket` (with
`coinbase_levels`) and `kraken_websocket` speak the exchanges' feeds, `feed_server` has what these share; `rest` is the
REST side, `api_keys` and `rate_limit` are what it asks of a client. `faults` and `request_faults` are what can be
switched on by HTTP, `service` wires all of it. A further feed is a class with the methods of `feed_server.Feed`.
"""
