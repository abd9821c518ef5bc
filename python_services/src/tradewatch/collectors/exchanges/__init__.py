"""The exchanges that can be collected from. A further one is a class beside these and an entry here."""

from collections.abc import Callable

from tradewatch.collectors.exchanges.coinbase import Coinbase
from tradewatch.collectors.exchanges.kraken import Kraken
from tradewatch.collectors.exchanges.protocol import Exchange

EXCHANGES: dict[str, Callable[[tuple[str, ...]], Exchange]] = {"coinbase": Coinbase, "kraken": Kraken}
