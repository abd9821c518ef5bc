"""What is recent, and what it says of each asset."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tradewatch.collectors.sentiment.articles import Article
from tradewatch.collectors.sentiment.assets import AssetFinder
from tradewatch.collectors.sentiment.lexicon import ToneScorer

# Clocks differ; an article dated further ahead is refused, because its weight would not decay for so long.
MAX_AHEAD = timedelta(minutes=5)
MAX_REMEMBERED = 20_000
# The weight of the neutral prior, in articles published this moment.
PRIOR_WEIGHT = 1.0


class Outcome(StrEnum):
    """What became of an article seen for the first time."""

    SCORED = "scored"
    NO_ASSET = "no_asset"
    REPEATED = "repeated"
    OLD = "old"
    FUTURE = "future"
    UNDATED = "undated"


@dataclass(frozen=True, slots=True)
class Scored:
    """An article that counts: its tone is -1 to 1."""

    article: Article
    published: datetime
    assets: frozenset[str]
    tone: float


@dataclass(frozen=True, slots=True)
class AssetScore:
    """`score` -1 to 1, from `articles` articles."""

    score: float
    articles: int


class Scores:
    """The articles of the last `max_age`, each once, and the assets' scores from them.

    An asset's score is sum(w_i t_i) / (sum(w_i) + PRIOR_WEIGHT), t_i the tone of an article and w_i = 2^(-age / half
    life). The prior draws the score towards 0: old news fade, and one loud headline alone gives half its tone.
    """

    def __init__(self, finder: AssetFinder, scorer: ToneScorer, *, half_life: timedelta, max_age: timedelta) -> None:
        self._finder = finder
        self._scorer = scorer
        self._half_life = half_life
        self._max_age = max_age
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._kept: list[Scored] = []

    def add(self, feed: str, article: Article, now: datetime) -> Outcome | Scored | None:
        """Take an article. Returns it scored, or why it does not count; None where that is known already."""
        if not self._first(f"{feed}:{article.id}"):
            return None
        published = article.published
        if published is None:
            return Outcome.UNDATED
        if published - now > MAX_AHEAD:
            return Outcome.FUTURE
        if now - published > self._max_age:
            return Outcome.OLD
        assets = self._finder.find(article.title)
        if not assets:
            return Outcome.NO_ASSET
        # Agencies' news appear in many feeds: told twice is not twice as true.
        if not self._first(f"title:{_digest(article.title)}"):
            return Outcome.REPEATED
        scored = Scored(article, published, assets, self._scorer.score(article.title))
        self._kept.append(scored)
        return scored

    def of(self, asset: str, now: datetime) -> AssetScore:
        """The asset's score at `now`."""
        self._kept = [scored for scored in self._kept if now - scored.published <= self._max_age]
        about = [scored for scored in self._kept if asset in scored.assets]
        weights = [self._weight(now - scored.published) for scored in about]
        total = sum(weight * scored.tone for weight, scored in zip(weights, about, strict=True))
        return AssetScore(total / (sum(weights) + PRIOR_WEIGHT), len(about))

    def _weight(self, age: timedelta) -> float:
        return float(2.0 ** (-max(age, timedelta(0)) / self._half_life))

    def _first(self, key: str) -> bool:
        known = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return not known


def _digest(title: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in title.casefold()).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:32]
