"""The news simulator: `headlines` makes them, `feeds` serves them as RSS and Atom, `faults` breaks that on request."""
