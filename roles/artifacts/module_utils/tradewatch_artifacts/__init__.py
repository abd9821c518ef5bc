"""Find every artifact of the table in the cache, upstream or the bundle, and say why where that fails."""
