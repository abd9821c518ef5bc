"""Stand-ins for the outside world; only the lab and the tests run them."""
