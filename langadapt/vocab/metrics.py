"""What a tokenizer costs on text: tokens per word, bytes per token, lines that keep their ids."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.model.spelling import ByteLevel, Spelling
from langadapt.vocab.tokenizer_file import encode_all

# First and last code points of the blocks whose languages put no spaces between words.
_UNSPACED = (
    (0x0E00, 0x0EFF, "Thai or Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Burmese"),
    (0x1780, 0x17FF, "Khmer"),
    (0x3040, 0x30FF, "Japanese"),
    (0x3400, 0x9FFF, "Chinese or Japanese"),
    (0x20000, 0x3FFFF, "Chinese or Japanese"),
)
_UNSPACED_SHARE = 0.3
_SAMPLES = 8


def raw_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of the tokenizers library that a transformers tokenizer holds (or the one that is given).

    A file may ask for truncation or padding, which would be counted as if the text had it: both are switched off.
    DataError for a tokenizer written in Python.
    """
    raw = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(raw, "encode_batch"):
        raise DataError(f"{type(tokenizer).__name__} has no fast form, which counting needs")
    if raw.truncation is not None:
        raw.no_truncation()
    if raw.padding is not None:
        raw.no_padding()
    return raw


def unspaced_script(texts: Iterable[str]) -> str | None:
    """Name of the script if more than 30 % of the letters belong to one that writes no spaces between words."""
    letters, found = 0, dict[str, int]()
    for text in texts:
        for letter in text:
            if letter.isalpha():
                letters += 1
                code = ord(letter)
                if code >= _UNSPACED[0][0]:
                    for first, last, name in _UNSPACED:
                        if first <= code <= last:
                            found[name] = found.get(name, 0) + 1
    name = max(sorted(found), key=lambda key: found[key], default="")
    return name if sum(found.values()) > _UNSPACED_SHARE * letters else None


def token_count(tokenizer: Any, texts: Sequence[str]) -> int:
    """Tokens of all texts, each encoded whole, no special tokens added."""
    return sum(len(ids) for ids in encode_all(raw_tokenizer(tokenizer), texts, batch=1000))


def tokens_per_word(tokenizer: Any, texts: Sequence[str]) -> float | None:
    """Tokens of all texts divided by their whitespace-separated words (a ratio of sums).

    None if there are no words, or the script has no spaces between them: any number would be about the punctuation.
    """
    words = _words(texts)
    return token_count(tokenizer, texts) / words if words else None


def _words(texts: Sequence[str]) -> int:
    """Words between blanks; 0 where the script has none."""
    return 0 if unspaced_script(texts) is not None else sum(len(text.split()) for text in texts)


def bytes_per_token(tokenizer: Any, texts: Sequence[str]) -> float | None:
    """UTF-8 bytes of all texts divided by their tokens; None for no text."""
    tokens = token_count(tokenizer, texts)
    return sum(len(text.encode()) for text in texts) / tokens if tokens else None


def same_ids_share(base: Any, new: Any, lines: Sequence[str], ids: Mapping[int, int] | None = None) -> float | None:
    """Share of lines that both tokenizers turn into exactly the same tokens; None for no lines.

    `ids` maps old id -> new id where tokens were renumbered; one that is not in it is gone.
    """
    pairs = zip(encode_all(raw_tokenizer(base), lines), encode_all(raw_tokenizer(new), lines), strict=True)
    same = sum(
        (before if ids is None else [ids.get(number, -1) for number in before]) == after for before, after in pairs
    )
    return same / len(lines) if lines else None


def same_tokens_share(
    base: Any, new: Any, lines: Sequence[str], base_keys: Sequence[Hashable], new_keys: Sequence[Hashable]
) -> float | None:
    """Share of lines that both cut into the same tokens, whatever their ids; None for no lines.

    `base_keys[id]` and `new_keys[id]` say what a token is; see model/token_keys.py.
    """
    pairs = zip(encode_all(raw_tokenizer(base), lines), encode_all(raw_tokenizer(new), lines), strict=True)
    same = sum([base_keys[id] for id in before] == [new_keys[id] for id in after] for before, after in pairs)
    return same / len(lines) if lines else None


def show_split(tokenizer: Any, text: str, spelling: Spelling | None = None) -> str:
    """The text with a bar between tokens; a character that is cut inside shows as `·`, one for each part."""
    spelling = spelling or ByteLevel()
    shown = []
    for piece in raw_tokenizer(tokenizer).encode(text, add_special_tokens=False).tokens:
        try:
            content = spelling.content(piece)
        except DataError:  # an added token, which stands for itself
            content = piece.encode()
        shown.append(content.decode("utf-8", "replace").replace("\ufffd", "·"))
    return "|".join(shown)


def sample_lines(lines: Iterable[str], count: int) -> list[str]:
    """A few lines of 40 to 110 characters, the same ones for the same text wherever they stand in it."""
    fitting = {line.strip() for line in lines if 40 <= len(line.strip()) <= 110 and " " in line.strip()}
    return sorted(fitting, key=lambda line: hashlib.sha256(line.encode()).digest())[:count]


def compare(
    base: Any,
    new: Any,
    texts: Sequence[str],
    guarded: Sequence[str],
    spelling: Spelling | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Base against extended tokenizer on held-out `texts` of the target and of `guarded` languages; sample splits.

    `spelling` is how both write their pieces, the byte alphabet if it is not given.
    """
    progress = progress or Progress()
    lines = lines_of(guarded)
    words, size = _words(texts), sum(len(text.encode()) for text in texts)
    tokens = {
        name: sum(
            len(ids)
            for ids in progress.track(
                encode_all(raw_tokenizer(tokenizer), texts),
                f"measuring {name} on held-out text",
                total=len(texts),
                unit="documents",
                every=20,
            )
        )
        for name, tokenizer in (("base", base), ("adapted", new))
    }
    return {
        "tokens_per_word": {name: round(count / words, 4) if words else None for name, count in tokens.items()},
        "bytes_per_token": {name: round(size / count, 4) if count else None for name, count in tokens.items()},
        "unspaced_script": unspaced_script(texts),
        "held_out_lines_same_ids": same_ids_share(base, new, lines),
        "held_out_lines": len(lines),
        "samples": [
            {"text": line, "base": show_split(base, line, spelling), "adapted": show_split(new, line, spelling)}
            for line in sample_lines(lines_of(texts), _SAMPLES)
        ],
    }


def lines_of(texts: Iterable[str]) -> list[str]:
    """Lines that hold more than blanks."""
    return [line for text in texts for line in text.splitlines() if line.strip()]


def both(
    measure: Callable[[Any, Sequence[str]], float | None], base: Any, new: Any, texts: Sequence[str]
) -> dict[str, float | None]:
    """A measure of both tokenizers, to four digits."""
    values = {"base": measure(base, texts), "adapted": measure(new, texts)}
    return {name: None if value is None else round(value, 4) for name, value in values.items()}
