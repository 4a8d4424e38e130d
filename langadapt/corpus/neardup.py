"""MinHash keys of texts: near duplicates share at least one of their 14 keys (Broder 1997; banding as in FineWeb-2).

A text is lower-cased and cut into tokens: words, or single characters in scripts that write no spaces. Its shingles are
all runs of five tokens. Two texts whose shingles have Jaccard similarity J share a key with probability
1 - (1 - J^8)^14: 3 % at 0.46, a half at 0.69, 95 % at 0.81.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from langadapt.core.rng import stream

BANDS = 14
ROWS = 8
SHINGLE = 5
# With fewer shingles one changed word changes them all: only equal texts are found.
LEAST_SHINGLES = 5

Words64 = npt.NDArray[np.uint64]

_SEPARATOR, _LETTER, _ALONE = 0, 1, 2
_BMP = 0x10000
_SUPPLEMENTARY_HAN = 0x20000
# Thai and Lao, Myanmar, Khmer, Tai scripts, Balinese, kana, Han (twice), Javanese, Myanmar extended and Tai Viet
_UNSPACED = (
    (0x0E00, 0x0F00),
    (0x1000, 0x10A0),
    (0x1780, 0x1800),
    (0x1950, 0x1AB0),
    (0x1B00, 0x1B80),
    (0x3040, 0x3100),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xA980, 0xAAE0),
    (0xF900, 0xFB00),
)
# Powers beyond this repeat; no word is as long.
_POWERS = 1024


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Kind of every code point of the basic plane: separator, letter of a word, or a token alone."""
    kinds = np.zeros(_BMP, np.uint8)
    for code in range(_BMP):
        letter = chr(code)
        if letter.isalnum() or unicodedata.category(letter)[0] == "M":
            kinds[code] = _LETTER
    for low, high in _UNSPACED:
        part = kinds[low:high]
        part[part == _LETTER] = _ALONE
    return kinds


@cache
def _constants() -> tuple[Words64, Words64, npt.NDArray[np.uint32], npt.NDArray[np.uint32], Words64]:
    """Odd multipliers: powers for letters, places in a shingle, (factor, addend) of each hash, rows of a band."""
    random = stream(0, "minhash", BANDS, ROWS, SHINGLE)
    powers = np.ones(_POWERS, np.uint64)
    powers[1:] = random.integers(0, 2**64, dtype=np.uint64) | np.uint64(1)
    places = random.integers(0, 2**64, SHINGLE, dtype=np.uint64) | np.uint64(1)
    factors = random.integers(0, 2**32, BANDS * ROWS, dtype=np.uint32) | np.uint32(1)
    addends = random.integers(0, 2**32, BANDS * ROWS, dtype=np.uint32)
    rows = random.integers(0, 2**64, ROWS, dtype=np.uint64) | np.uint64(1)
    return np.cumprod(powers, dtype=np.uint64), places, factors, addends, rows


def mix64(values: Words64) -> Words64:
    """Spread 64 bits (the finaliser of MurmurHash3), in place."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values ^= values >> np.uint64(33)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(33)
    return values


def shingles(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """32-bit hashes of the shingles of all texts one after another, and how many each text has."""
    powers, places, _, _, _ = _constants()
    lowered = [text.lower() for text in texts]
    # a line end closes the last token of each text
    codes = np.frombuffer(("\n".join(lowered) + "\n").encode("utf-32-le", "replace"), np.uint32)
    text_ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    kinds = _kinds()[np.minimum(codes, _BMP - 1)]
    if codes.max(initial=0) >= _BMP:
        kinds[codes >= _BMP] = _LETTER
        kinds[codes >= _SUPPLEMENTARY_HAN] = _ALONE
    letter = kinds == _LETTER
    begins = letter.copy()
    begins[1:] &= ~letter[:-1]
    begins |= kinds == _ALONE
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.zeros(0, np.uint32), np.zeros(len(texts), np.int64)
    place = np.arange(len(codes), dtype=np.int32)
    place -= np.maximum.accumulate(np.where(begins, place, np.int32(0)))
    terms = powers[place & np.int32(_POWERS - 1)]
    terms *= codes
    terms[kinds == _SEPARATOR] = 0
    tokens = mix64(np.add.reduceat(terms, starts))
    token_ends = np.searchsorted(starts, text_ends)
    counts = np.maximum(np.diff(token_ends, prepend=0) - (SHINGLE - 1), 0)
    runs = np.zeros(max(0, len(tokens) - SHINGLE + 1), np.uint64)
    for at in range(SHINGLE):
        runs += tokens[at : at + len(runs)] * places[at]
    inside = np.ones(len(runs), bool)
    for back in range(1, SHINGLE):  # runs that go over the end of a text
        over = token_ends - back
        inside[over[(over >= 0) & (over < len(runs))]] = False
    return (mix64(runs[inside]) >> np.uint64(32)).astype(np.uint32), counts


def signatures(hashes: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """MinHash of each text, [112, texts]: the least value of 112 multiply-add hashes; every count must be positive."""
    _, _, factors, addends, _ = _constants()
    starts = np.cumsum(counts) - counts
    found = np.empty((BANDS * ROWS, len(counts)), np.uint32)
    values = np.empty_like(hashes)
    for number, (factor, addend) in enumerate(zip(factors, addends, strict=True)):
        np.multiply(hashes, factor, out=values)
        np.add(values, addend, out=values)
        np.minimum.reduceat(values, starts, out=found[number])
    return found


def band_keys(texts: Sequence[str]) -> tuple[Words64, npt.NDArray[np.bool_]]:
    """64-bit keys [14, texts with enough shingles], and which texts those are."""
    hashes, counts = shingles(texts)
    enough = counts >= LEAST_SHINGLES
    if not enough.any():
        return np.zeros((BANDS, 0), np.uint64), enough
    hashes = hashes[np.repeat(enough, counts)]
    found = signatures(hashes, counts[enough])
    rows = _constants()[4]
    keys = np.zeros((BANDS, found.shape[1]), np.uint64)
    for row in range(ROWS):
        keys += found[row::ROWS] * rows[row]
    return mix64(keys), enough
