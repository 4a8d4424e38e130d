"""What a tokenizer makes of a text and of its letters, from the bytes that each token stands for."""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.core.scripts import script_of
from langadapt.model.spans import PieceReader, Spans, spans
from langadapt.vocab.metrics import raw_tokenizer
from langadapt.vocab.tokenizer_file import encode_all

_WORD = re.compile(r"\S+")
# A letter rarer than this in the text is a foreign name or a typo.
LETTER_SHARE = 1e-4
# Forms a letter needs: inside a word, at its beginning (most families keep the space in the token), as a capital.
FORMS = ("letter", "with space", "capital", "capital with space")


@dataclass(frozen=True)
class Cost:
    """Sums over texts: tokens, UTF-8 bytes, and what happens to words and characters.

    `pieces` are tokens that begin or end inside a character; `hidden_bytes` stand behind unknown tokens;
    `changed_bytes` are not spelled as they stand. `continued` of `words` have two tokens or more.
    """

    tokens: int
    bytes: int
    words: int
    continued: int
    pieces: int
    unknown: int
    hidden_bytes: int
    changed_bytes: int
    counts: Mapping[int, int]


def measure(tokenizer: Any, texts: Sequence[str]) -> Cost:
    """Tokenise every text once, whole; a token belongs to the word that holds its last byte."""
    reader = PieceReader.of(tokenizer)
    counts = Counter[int]()
    size = words = continued = pieces = unknown = hidden = changed = 0
    for text in texts:
        placed = spans(tokenizer, text, reader)
        content = text.encode()
        counts.update(placed.ids)
        size += len(content)
        own, cut = _words(text, placed)
        words, continued = words + own, continued + cut
        pieces += _pieces(content, placed)
        unknown += sum(1 for length in placed.hidden if length)
        hidden, changed = hidden + sum(placed.hidden), changed + placed.changed_bytes
    return Cost(counts.total(), size, words, continued, pieces, unknown, hidden, changed, counts)


def _words(text: str, placed: Spans) -> tuple[int, int]:
    """Words between blanks, and how many of them hold the last bytes of two tokens or more."""
    words = continued = at = reached = 0
    for match in _WORD.finditer(text):
        first = reached + len(text[at : match.start()].encode())
        last = first + len(match[0].encode())
        at, reached = match.end(), last
        # an end e has its last byte at e - 1: inside the word when first < e <= last
        inside = bisect_right(placed.ends, last) - bisect_right(placed.ends, first)
        words, continued = words + 1, continued + (inside > 1)
    return words, continued


def _pieces(content: bytes, placed: Spans) -> int:
    """Tokens with an edge inside a character."""
    found, begin = 0, 0
    for end in placed.ends:
        found += any(0 < edge < len(content) and content[edge] & 0xC0 == 0x80 for edge in (begin, end))
        begin = end
    return found


@dataclass(frozen=True)
class Letters:
    """Letters of the text by what the vocabulary has for them.

    `unspellable` cannot be written with its tokens at all; `in_pieces` have no token in any form; `incomplete` have one
    in some forms only. `missing[form]` are the letters without a token in that form, `total` counts all of them.
    """

    total: int
    unspellable: tuple[str, ...]
    in_pieces: tuple[str, ...]
    incomplete: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]


def alphabet(letters: Mapping[str, int]) -> list[str]:
    """Small letters and vowel signs of a text in its own scripts, commonest first, without what is too rare.

    Latin letters between those of another script are foreign words; a second script with a tenth of the letters is
    the language's own (Japanese).
    """
    total = sum(letters.values())
    scripts = _scripts(letters)
    main = main_script(letters)
    own = {name for name, count in scripts.items() if name == main or (name != "LATIN" and count >= total / 10)}
    small = Counter[str]()
    for letter, count in letters.items():
        lower = letter.lower()
        small[lower if len(lower) == 1 else letter] += count
    enough = max(2, LETTER_SHARE * total)
    return [letter for letter, count in small.most_common() if count >= enough and script_of(letter) in own]


def letters_without_token(letters: Sequence[str], tokens: Iterable[bytes], spellable: Callable[[str], bool]) -> Letters:
    """Compare an alphabet with the bytes of all text tokens; `spellable` tells whether they can be written."""
    have = frozenset(tokens)
    missing: dict[str, list[str]] = {name: [] for name in FORMS}
    lost, pieces, some = [], [], []
    for letter in letters:
        forms = letter_forms(letter)
        absent = [name for name, text in forms.items() if text.encode() not in have]
        for name in absent:
            missing[name].append(letter)
        if not spellable(letter):
            lost.append(letter)
        elif len(absent) == len(forms):
            pieces.append(letter)
        elif absent:
            some.append(letter)
    return Letters(
        len(letters), tuple(lost), tuple(pieces), tuple(some), {name: tuple(missing[name]) for name in FORMS}
    )


def letter_forms(letter: str) -> dict[str, str]:
    """The letter alone and behind a space, and the same of its capital if it has one; a vowel sign only alone."""
    capital = letter.upper()
    forms = {"letter": letter}
    if not unicodedata.category(letter).startswith("M"):
        forms["with space"] = f" {letter}"
    if capital != letter and len(capital) == 1:
        forms |= {"capital": capital, "capital with space": f" {capital}"}
    return forms


def token_bytes(tokenizer: Any) -> list[bytes]:
    """What the text tokens of a tokenizer stand for; added and special tokens left out. Any family."""
    reader = PieceReader.of(tokenizer)
    return [reader.read(piece) for piece in tokenizer.get_vocab() if piece not in reader.added]


def can_spell(tokenizer: Any) -> Callable[[str], bool]:
    """Tells of a text whether the tokenizer keeps every byte of it."""
    reader = PieceReader.of(tokenizer)

    def keeps(text: str) -> bool:
        placed = spans(tokenizer, text, reader)
        return not any(placed.hidden) and placed.changed_bytes == 0

    return keeps


def is_altered(tokenizer: Any, text: str) -> bool:
    """Does the tokenizer read other letters than there are, where it reads any?"""
    placed = spans(tokenizer, text, PieceReader.of(tokenizer))
    return placed.changed_bytes > 0 and not any(placed.hidden)


def ids_in(tokenizer: Any, texts: Sequence[str]) -> set[int]:
    """The ids that the texts use."""
    return {id for ids in encode_all(raw_tokenizer(tokenizer), texts, batch=1000) for id in ids}


def main_script(letters: Mapping[str, int]) -> str:
    """The script of most letters."""
    found = _scripts(letters)
    return found.most_common(1)[0][0] if found else "?"


def _scripts(letters: Mapping[str, int]) -> Counter[str]:
    found = Counter[str]()
    for letter, count in letters.items():
        found[script_of(letter) or "?"] += count
    return found


def tokens_in_script(tokens: Iterable[bytes], name: str) -> int:
    """Tokens whose letters are all of a script; pieces of characters do not count."""
    return sum(1 for content in tokens if _is_in(content, name))


def _is_in(content: bytes, name: str) -> bool:
    try:
        letters = [letter for letter in content.decode() if letter.isalpha()]
    except UnicodeDecodeError:
        return False
    return bool(letters) and all(script_of(letter) == name for letter in letters)
