"""Vectors of words: what a .vec or .bin file holds, or what fastText learns from text; and of tokens made of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.units import show_bytes
from langadapt.core.unpack import open_bytes
from langadapt.embed import fasttext_process
from langadapt.embed.kept import keep, kept, place_of
from langadapt.embed.types import Floats, Ints
from langadapt.embed.words import words_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of the 2 million words in a published file, the rest is names, misspellings and other languages: 400 MB at 300.
MOST_WORDS = 200_000
# Published files have a few words with broken letters, which are left out; more of them are another encoding.
MOST_BROKEN = 0.01
# Vectors of words that were not given: as fastText's own defaults, but fewer buckets (its 2 million take 800 MB).
WORD_SETTINGS: dict[str, Any] = {
    "model": "skipgram", "dim": 100, "ws": 5, "epoch": 5, "minCount": 5, "minn": 3, "maxn": 6, "neg": 5,
    "bucket": 500_000, "lr": 0.05,
}  # fmt: skip
# Ten thousand numbers, written out in full.
_MOST_LINE_BYTES = 1 << 18
_ENCODED_AT_A_TIME = 10_000


@dataclass(frozen=True)
class WordVectors:
    """`words` by falling frequency, `counts` [words] (None: not known), `table` [words, width] in float32.

    `compose` gives a vector to any string from its letters, where the source can do that.
    """

    words: Sequence[str] = field(repr=False)
    table: Floats = field(repr=False)
    counts: Ints | None = field(default=None, repr=False)
    compose: Callable[[Sequence[str]], Floats] | None = field(default=None, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return int(self.table.shape[1])

    @property
    def learned(self) -> bool:
        """Were they learned from text here? Files have no counts (.vec) or can compose (.bin)."""
        return self.counts is not None and self.compose is None

    def index(self) -> dict[str, int]:
        """Word -> its line in the table; the first of two equal words."""
        return {word: place for place, word in reversed(list(enumerate(self.words)))}

    def frequencies(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Counts, or one over the rank (Zipf) where there are none; [words]."""
        if self.counts is not None:
            return self.counts.astype(np.float64)
        return np.asarray(1.0 / np.arange(1, len(self.words) + 1))


def is_vectors(path: Path) -> bool:
    """Does the name say that this is a file of word vectors, and not text to learn them from?"""
    return path.name.lower().endswith((".bin", ".vec", ".vec.gz")) and not path.is_dir()


def open_vectors(path: Path, digest: str, texts: Callable[[], Iterator[str]], progress: Progress) -> WordVectors:
    """Vectors of a .vec or .bin file, or learned from the words of `texts` where the path is neither.

    `digest` is that of the path's content: what was learned is kept in the cache under it.
    """
    if is_vectors(path) and path.name.lower().endswith(".bin"):
        words, counts, table = fasttext_process.read_words(path, MOST_WORDS)
        return WordVectors(words, table, counts, partial(fasttext_process.compose, path))
    if is_vectors(path):
        return read_vec(path, progress=progress)
    lines = (" ".join(words_of(text)) for text in texts())
    return learned(lines, WORD_SETTINGS, {"text": digest, "words": 1}, progress, str(path))


def learned(
    lines: Iterable[str], settings: dict[str, Any], source: dict[str, Any], progress: Progress, what: str
) -> WordVectors:
    """Vectors that fastText learns from lines of words; kept in the cache under `source`, which names the lines.

    The lines are not read where the cache has the result.
    """
    from importlib.metadata import version

    key = {"settings": settings, "source": source, "fasttext": version("fasttext-community"), "format": 2}
    place = place_of("vectors", key)
    if (found := _from_cache(place)) is not None:
        return found
    progress.note(f"learning vectors from {what} with one thread")
    words, counts, table = fasttext_process.train(lines, settings, MOST_WORDS)
    made = WordVectors(words, table, counts)
    _into_cache(place, made)
    return made


def _into_cache(place: Path, made: WordVectors) -> None:
    letters = np.frombuffer("\n".join(made.words).encode(), dtype=np.uint8)
    counts = np.zeros(0, dtype=np.int64) if made.counts is None else made.counts
    keep(place, {"words": letters, "counts": counts, "table": made.table})


def _from_cache(place: Path) -> WordVectors | None:
    """What the cache holds; None for a file that another version left there."""
    arrays = kept(place)
    if arrays is None:
        return None
    try:
        words = arrays["words"].tobytes().decode().split("\n") if len(arrays["words"]) else []
        made = WordVectors(words, arrays["table"], arrays["counts"])
    except (KeyError, UnicodeDecodeError):
        return None
    return made if len(words) == len(made.table) == len(arrays["counts"]) else None


def read_vec(path: Path, most_words: int = MOST_WORDS, progress: Progress | None = None) -> WordVectors:
    """The first lines of a text file of vectors, `word number number ...`, behind an optional line of two sizes.

    Some published files have words with blanks inside, which are told to `progress`: the sizes, or else the first word,
    say how many numbers a line has, and what stands before them is the word, unless it ends in a number itself.

    A word that stands there twice keeps its first line. DataError names the line that is no vector, and a file that
    ends before the words that its first line promises, or in the middle of a line, or is not UTF-8.
    """
    words: list[str] = []
    rows: list[Floats] = []
    seen: set[str] = set()
    blanks: list[str] = []
    width, read, broken = 0, 0, 0
    promised: int | None = None
    line = b""
    for number, line in enumerate(_lines(path), 1):
        parts = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
        if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
            promised, width = int(parts[0]), int(parts[1])
            if not width:
                raise DataError("vectors of no numbers", where=f"{path}:1")
            continue
        width = width or len(parts) - 1
        row = _numbers(parts[len(parts) - width :], width)
        before = parts[: len(parts) - width]
        name = b" ".join(before)
        if row is None or not name:
            raise DataError(f"no word with {width} numbers", where=f"{path}:{number}")
        if _is_number_too_many(before, promised is not None):
            raise DataError(
                f"more numbers behind the word than the {width} that {_said_by(promised)}",
                where=f"{path}:{number}",
                hint="the file is damaged, or put together from vectors of several sizes: copy or make it again",
            )
        read += 1
        word = name.decode("utf-8", "replace")
        if "\ufffd" in word:
            broken += 1
        elif word not in seen:
            seen.add(word)
            words.append(word)
            rows.append(row)
            blanks += [word] if len(before) > 1 else []
        if len(words) >= most_words:
            break
    if broken > MOST_BROKEN * read:
        hint = "iconv -f FROM -t UTF-8, with the encoding that the file has"
        raise DataError(f"`{path}` is not UTF-8: {broken:,} of {read:,} words", hint=hint)
    if not words:
        raise DataError(f"`{path}` holds no vectors")
    if len(words) < most_words and (read < promised if promised is not None else not line.endswith(b"\n")):
        told = (
            f"its first line promises {promised:,} words and it has {read:,}"
            if promised
            else "its last line has no end"
        )
        raise DataError(f"`{path}` is cut off: {told}", hint="copy or download it again")
    if blanks and progress is not None:
        progress.note(
            f"{path.name}: {len(blanks):,} words have blanks inside, such as `{blanks[0]}`: "
            f"{_said_by(promised)} {width}"
        )
    return WordVectors(words, np.stack(rows))


def _said_by(promised: int | None) -> str:
    return "the first line says" if promised is not None else "the first word has"


def _is_number_too_many(before: Sequence[bytes], sized: bool) -> bool:
    """Does what stands before the numbers end in another one? Without a line of sizes `area 51` may be a word."""
    last = before[-1]
    return len(before) > 1 and (sized or not last.isdigit()) and _numbers([last], 1) is not None


def _lines(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        number = 1
        while line := file.readline(_MOST_LINE_BYTES):
            if len(line) == _MOST_LINE_BYTES and not line.endswith(b"\n"):
                told = f"a line of more than {show_bytes(_MOST_LINE_BYTES)}"
                raise DataError(f"{told}: no word with its numbers is that long", where=f"{path}:{number}")
            yield line
            number += 1


def _numbers(parts: Sequence[bytes], width: int) -> Floats | None:
    try:
        row = np.array(parts, dtype="S").astype(np.float32)
    except ValueError:
        return None
    return row if len(row) == width > 0 and bool(np.isfinite(row).all()) else None


def of_tokens(vectors: WordVectors, tokenizer: "Tokenizer", size: int) -> Floats:
    """Vectors [size, width] of a tokenizer's ids: of each token the mean of the words it occurs in, by their counts.

    Every word is cut as it stands and behind a space; a token counts once in each. A token of no word has a zero vector
    (WECHSEL, Minixhofer et al. 2022, for vectors without n-grams).
    """
    import torch

    total = torch.zeros((size, vectors.width), dtype=torch.float64)
    weight = torch.zeros(size, dtype=torch.float64)
    frequencies = vectors.frequencies()
    for start in range(0, len(vectors.words), _ENCODED_AT_A_TIME):
        part = slice(start, start + _ENCODED_AT_A_TIME)
        words = list(vectors.words[part])
        cut = [
            list(dict.fromkeys(encoding.ids))
            for prefix in ("", " ")
            for encoding in tokenizer.encode_batch([prefix + word for word in words], add_special_tokens=False)
        ]
        lengths = np.array([len(ids) for ids in cut])
        ids = torch.tensor([id for found in cut for id in found], dtype=torch.long)
        places = torch.from_numpy(np.repeat(np.tile(np.arange(len(words)), 2), lengths))
        heavy = torch.from_numpy(frequencies[part])
        weighted = torch.from_numpy(vectors.table[part]).double() * heavy[:, None]
        total.index_add_(0, ids, weighted[places])
        weight.index_add_(0, ids, heavy[places])
    return (total / weight.clamp(min=1e-300)[:, None]).float().numpy()
