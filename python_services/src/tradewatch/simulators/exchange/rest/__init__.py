"""The exchanges' REST interfaces on a port of their own.

`server` has what all requests share (authentication, rate limit, faults, metrics), `orders`, `accounts` and `products`
are Coinbase's endpoints, `kraken` Kraken's public ones, `render` turns orders into Coinbase's JSON.
"""
