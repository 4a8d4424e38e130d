"""Pre-tokens and how often they occur: a text cut by the tokenizer's own normaliser and pre-tokenizer."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

from langadapt.vocab.chunks import can_be_cut, chunks
from langadapt.vocab.tokenizer_file import TokenizerFile, pre_tokenizer_of
from langadapt.vocab.word_cuts import cutter


class WordCounter:
    """Cuts texts as the tokenizer does before its model looks at them, and counts the pieces (in printable form).

    Strings of added tokens are taken out first, as the tokenizer does: what is left and right of one is cut on its own.
    Where the pre-tokens are whole texts, they are cut further, see word_cuts.py, unless `whole` ones are wanted.
    """

    def __init__(self, base: TokenizerFile, *, whole: bool = False) -> None:
        self._added = base.added_pattern
        tokenizer: Tokenizer = base.tokenizer
        self._normaliser = tokenizer.normalizer
        self._pre_tokenizer = tokenizer.pre_tokenizer
        self._inside = _not_at_the_start(base)
        self._cut = (lambda word: [word]) if whole else cutter(base)
        self._in_chunks = can_be_cut(base.spec)
        self._chunks: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self.met: set[str] = set()
        """Strings of added tokens that stood in the texts."""

    def _sections(self, text: str) -> list[tuple[str, bool]]:
        """The text without the strings of added tokens; each part with: does it begin the text?"""
        if self._added is None:
            return [(text, True)] if text else []
        found, start = [], 0
        for match in self._added.finditer(text):
            found.append((text[start : match.start()], start == 0))
            self.met.add(match.group().strip())
            start = match.end()
        found.append((text[start:], start == 0))
        return [(part, first) for part, first in found if part]

    def words(self, text: str) -> list[str]:
        """Pre-tokens of a text in order."""
        found: list[str] = []
        for section, first in self._sections(text):
            found += self._cut_section(section, first)
        return found

    def _cut_section(self, section: str, first: bool) -> list[str]:
        plain = section if self._normaliser is None else self._normaliser.normalize_str(section)
        pre_tokenizer = self._pre_tokenizer if first else self._inside
        found = [plain] if pre_tokenizer is None else [word for word, _ in pre_tokenizer.pre_tokenize_str(plain)]
        return [part for word in found if word for part in self._cut(word)]

    def add(self, text: str) -> None:
        """Count the pre-tokens of one text."""
        if not self._in_chunks:
            self._counts.update(self.words(text))
            return
        for section, first in self._sections(text):
            start, others = chunks(section)
            self._counts.update(self._cut_section(start, first))
            self._chunks.update(others)

    @property
    def counts(self) -> Counter[str]:
        """How often each pre-token occurred so far."""
        for chunk, count in self._chunks.items():
            for word in self._cut_section(f" {chunk}", False):
                self._counts[word] += count
        self._chunks.clear()
        return self._counts


def _not_at_the_start(base: TokenizerFile) -> Any:
    """The pre-tokenizer for text behind an added token: the scheme `first` puts no space there."""
    section = json.dumps(base.spec.get("pre_tokenizer"))
    if '"prepend_scheme": "first"' not in section:
        return base.tokenizer.pre_tokenizer
    section = section.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')
    return pre_tokenizer_of(json.loads(section))


def count_words(base: TokenizerFile, texts: Iterable[str]) -> Counter[str]:
    """How often each pre-token occurs in `texts`."""
    counter = WordCounter(base)
    for text in texts:
        counter.add(text)
    return counter.counts
