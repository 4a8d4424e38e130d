"""Looking at tokenizers: what they cost on a text, how two differ, pieces and ids. Plain functions: nothing is kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More text than this changes no figure in its third digit.
TEXT_BYTES = 20_000_000


@dataclass(frozen=True)
class Piece:
    """One token of a text: `text` is what it stands for, a character that it cuts as `·`."""

    id: int
    piece: str
    text: str


def open_tokenizer(given: str | Path, progress: Progress | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder, artifact, tokenizer.json, .gguf file or hub id. DataError if there is none."""
    from langadapt.core.verified import verify_content
    from langadapt.model.load import load_any_tokenizer, resolve_tokenizer

    if not str(given).strip():
        raise DataError("the name of a tokenizer is empty", hint="is a variable of the shell not set?")
    place = resolve_tokenizer(str(given), progress)
    if is_artifact(place):
        verify_content(open_artifact(place, "tokenizer", "model"))
    return load_any_tokenizer(place)


def read_texts(places: Sequence[Path], limit: int = TEXT_BYTES, progress: Progress | None = None) -> list[str]:
    """Documents of text files and corpus artifacts, at most about `limit` bytes. DataError if there are none."""
    from langadapt.corpus.store import documents

    texts, size = [], 0
    for document in chain.from_iterable(documents(place, "all") for place in places):
        if size >= limit:
            (progress or Progress()).note(f"the first {size:,} bytes of text are used")
            break
        texts.append(document.text)
        size += len(document.text.encode())
    if not texts:
        raise DataError("there is no text", where=", ".join(map(str, places)))
    return texts


def stats(
    tokenizers: Sequence["PreTrainedTokenizerBase"], texts: Sequence[str], progress: Progress | None = None
) -> list[dict[str, Any]]:
    """What each tokenizer makes of the texts; the measures are explained in docs/tokenizer.md."""
    from langadapt.vocab.usage import measure

    bar = _bar(texts, len(tokenizers), progress)
    found = [measure(tokenizer, texts, bar=bar).figures() for tokenizer in tokenizers]
    bar.finish()
    return found


def compare(
    first: "PreTrainedTokenizerBase",
    second: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The figures of both, how much of the text has the same tokens and ids, and the words that changed most.

    Tokens are compared as `evaluate` does: by their bytes, special ones by string and part; see model/token_keys.py.
    """
    from langadapt.model.token_keys import keys_or_strings
    from langadapt.vocab.usage import compared, measure

    bar = _bar(texts, 2, progress)
    usages = [measure(tokenizer, texts, by_word=True, bar=bar) for tokenizer in (first, second)]
    bar.finish()
    with tempfile.TemporaryDirectory() as name:
        # saved again, so that a lone file or a folder without tokenizer.json is one like all others
        folders = Path(name, "first"), Path(name, "second")
        for tokenizer, folder in zip((first, second), folders, strict=True):
            tokenizer.save_pretrained(str(folder))
        keys = keys_or_strings(folders, (first, second))
    return {"figures": [usage.figures() for usage in usages], **compared(usages[0], usages[1], texts, *keys)}


def _bar(texts: Sequence[str], times: int, progress: Progress | None) -> Any:
    total = times * sum(len(text.encode()) for text in texts)
    return (progress or Progress()).start("tokenising", total=total, unit="bytes")


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, *, special: bool = False) -> list[Piece]:
    """The tokens of a text; with `special` those that the tokenizer puts around it too.

    The name of a special token inside the text is that token, as in every use of the tokenizer.
    """
    from langadapt.model.spans import PieceReader
    from langadapt.vocab.usage import readable

    reader = PieceReader.of(tokenizer)
    ids: Any = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    return [Piece(int(id), piece, readable(reader, [piece])) for id, piece in zip(ids, pieces, strict=True)]


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text that ids stand for, special tokens by their names. DataError for an id that no token has."""
    known = set(tokenizer.get_vocab().values())
    for number in ids:
        if number not in known:
            raise DataError(f"no token has the id {number}", hint=f"the ids are 0 to {max(known)}")
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
