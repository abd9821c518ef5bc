"""The tone of a headline: VADER (C.J. Hutto, E. Gilbert, ICWSM 2014) with the words of `crypto_lexicon.txt` added."""

from importlib import resources

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

LEXICON = "crypto_lexicon.txt"
MAX_VALENCE = 4.0


class ToneScorer:
    """Scores texts; making one reads the lexicons, so make it once."""

    def __init__(self) -> None:
        self._vader = SentimentIntensityAnalyzer()
        self._vader.lexicon.update(crypto_lexicon())

    def score(self, text: str) -> float:
        """VADER's compound score: -1 (most negative) to 1; 0 for a text without tone."""
        return float(self._vader.polarity_scores(text)["compound"])


def crypto_lexicon() -> dict[str, float]:
    """The words added and their valences.

    Raises:
        ValueError: a line is not a word, a tab and a valence within VADER's scale, or a word is there twice.
    """
    words: dict[str, float] = {}
    text = resources.files(__package__).joinpath(LEXICON).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        word, _, valence = line.partition("\t")
        value = float(valence)
        if word in words or word != word.lower() or not abs(value) <= MAX_VALENCE:
            raise ValueError(f"{LEXICON}, line {number}: {line!r}")
        words[word] = value
    return words
