"""Which assets a headline speaks of."""

import re
from collections.abc import Sequence

# Names as the press writes them. One that begins the name of another asset says what must not follow it.
NAMES: dict[str, tuple[str, ...]] = {
    "BTC": (r"bitcoin(?![\s-]+(?:cash|sv|gold)\b)",),
    "ETH": (r"ethereum(?![\s-]+classic\b)", "ether"),
    "BCH": (r"bitcoin[\s-]+cash",),
    "ETC": (r"ethereum[\s-]+classic",),
    "SOL": ("solana",),
    "XRP": ("ripple",),
    "ADA": ("cardano",),
    "DOGE": ("dogecoin",),
    "LTC": ("litecoin",),
    "DOT": ("polkadot",),
    "AVAX": ("avalanche",),
    "LINK": ("chainlink",),
}


class AssetFinder:
    """Finds assets by ticker (`BTC`, `$BTC`, `BTC-USD`; capitals only, so that `link` is not LINK) and by name.

    Both only as whole words: `ETHical` is not ETH. An asset that `NAMES` lacks is found by its ticker alone.
    """

    def __init__(self, assets: Sequence[str]) -> None:
        self._patterns = {asset: _pattern(asset) for asset in assets}

    def find(self, text: str) -> frozenset[str]:
        """The assets that the text names."""
        return frozenset(asset for asset, pattern in self._patterns.items() if pattern.search(text))


def _pattern(asset: str) -> re.Pattern[str]:
    names = "|".join(NAMES.get(asset, ()))
    by_name = f"|(?i:{names})" if names else ""
    return re.compile(rf"(?<!\w)(?:{re.escape(asset)}{by_name})(?!\w)")
