"""Which trade ids have been seen, in little memory however many they are."""

from bisect import bisect_right


class SeenIds:
    """A set of whole numbers kept as ranges, since an exchange numbers a product's trades one after the other.

    Beyond `max_ranges` the hole below the two lowest is closed: an id in it can no longer be told from a known one
    and counts as seen.
    """

    def __init__(self, max_ranges: int = 4096) -> None:
        self._max_ranges = max_ranges
        # Disjoint, not adjacent, rising: range n holds starts[n]..ends[n], both included.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, number: int) -> bool:
        """Take a number. Returns whether it is new."""
        after = bisect_right(self._starts, number)
        before = after - 1
        if before >= 0 and number <= self._ends[before]:
            return False
        joins_before = before >= 0 and self._ends[before] == number - 1
        joins_after = after < len(self._starts) and self._starts[after] == number + 1
        if joins_before and joins_after:
            self._ends[before] = self._ends.pop(after)
            del self._starts[after]
        elif joins_before:
            self._ends[before] = number
        elif joins_after:
            self._starts[after] = number
        else:
            self._starts.insert(after, number)
            self._ends.insert(after, number)
            self._forget()
        return True

    def _forget(self) -> None:
        if len(self._starts) > self._max_ranges:
            del self._starts[1]
            del self._ends[0]
