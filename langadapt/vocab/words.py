"""Pre-tokens and how often they occur: a text cut by the tokenizer's own normaliser and pre-tokenizer."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer

from langadapt.vocab.tokenizer_file import TokenizerFile


class WordCounter:
    """Cuts texts as the tokenizer does before its model looks at them, and counts the pieces (in printable form).

    Strings of added tokens are taken out first, as the tokenizer does: what is left and right of one is cut on its own.
    """

    def __init__(self, base: TokenizerFile) -> None:
        self._added = base.added_pattern
        tokenizer: Tokenizer = base.tokenizer
        self._normaliser = tokenizer.normalizer
        self._pre_tokenizer = tokenizer.pre_tokenizer
        self.counts: Counter[str] = Counter()

    def sections(self, text: str) -> list[str]:
        """The text without the strings of added tokens."""
        parts = [text] if self._added is None else self._added.split(text)
        return [part for part in parts if part]

    def words(self, text: str) -> list[str]:
        """Pre-tokens of a text in order."""
        found = []
        for section in self.sections(text):
            plain = section if self._normaliser is None else self._normaliser.normalize_str(section)
            if self._pre_tokenizer is None:
                found.append(plain)
            else:
                found += [word for word, _ in self._pre_tokenizer.pre_tokenize_str(plain)]
        return [word for word in found if word]

    def add(self, text: str) -> None:
        """Count the pre-tokens of one text."""
        self.counts.update(self.words(text))


def count_words(base: TokenizerFile, texts: Iterable[str]) -> Counter[str]:
    """How often each pre-token occurs in `texts`."""
    counter = WordCounter(base)
    for text in texts:
        counter.add(text)
    return counter.counts
