"""Everything preflight can say about an inventory and its hosts, as functions from plain data to a list of problems."""
