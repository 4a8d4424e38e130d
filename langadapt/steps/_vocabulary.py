"""What the steps that make tokenizers share: their inputs, words of corpora with counts, the guard, sizes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from langadapt.core.artifact import Output
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input
from langadapt.core.io import read_json_object

if TYPE_CHECKING:
    from langadapt.vocab.tokenizer_file import TokenizerFile

# More held-out text than this does not change a rate in its third digit.
MEASURED_BYTES = 4_000_000
# Texts of the target that are also encoded through transformers, one by one: seconds for thousands.
LOADED_TEXTS = 200


def lang_of(corpus: Input) -> str | None:
    """The language that a corpus says it is of."""
    lang = corpus.facts.get("lang")
    return str(lang) if lang else None


def langs_of(corpora: Sequence[Input]) -> list[str]:
    """The languages of several corpora, each once, sorted."""
    return sorted({lang for item in corpora if (lang := lang_of(item)) is not None})


def read(corpus: Input, split: Literal["train", "held-out"], cap: int) -> Iterator[str]:
    """Texts of a corpus until `cap` bytes; documents are ordered by hash, so its beginning is a fair sample."""
    from langadapt.corpus.store import documents

    taken = 0
    for document in documents(corpus.path, split):
        taken += len(document.text.encode())
        if taken > cap:
            return
        yield document.text


def first_texts(corpus: Input) -> Iterator[str]:
    """The beginning of a corpus, enough to tell how many bytes a token has."""
    from langadapt.corpus.store import documents
    from langadapt.mixture.price import SAMPLE_BYTES

    size = 0
    for document in documents(corpus.path, "train"):
        yield document.text
        size += len(document.text.encode())
        if size >= SAMPLE_BYTES:
            return


def texts(corpus: Input, split: Literal["train", "held-out"], cap: int = MEASURED_BYTES) -> list[str]:
    """What `read` gives, as a list."""
    return list(read(corpus, split, cap))


def count(
    base: "TokenizerFile", corpora: Sequence[Input], cap: int, task: str, out: Output, met: set[str] | None = None
) -> Mapping[str, int]:
    """Words (as the tokenizer cuts them) of the train parts with their counts; `cap` bytes of each corpus.

    Strings of added tokens that stand in the texts go into `met`.
    """
    from langadapt.vocab.words import WordCounter

    counter = WordCounter(base)
    for corpus in corpora:
        for text in out.progress.track(read(corpus, "train", cap), f"{task} of {corpus.given}", unit="documents"):
            counter.add(text)
    if met is not None:
        met |= counter.met
    return counter.counts


def table_rows(folder: Path, base: "TokenizerFile") -> int:
    """Rows of the model's embedding table, by its config; a bare tokenizer has as many as tokens."""
    path = folder / "config.json"
    config = read_json_object(path) if path.is_file() else {}
    text = config.get("text_config")
    rows = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if rows is None:
        return base.next_id
    if not isinstance(rows, int) or rows < base.next_id:
        raise DataError(
            f"its tokenizer has ids up to {base.next_id - 1:,}, its table {rows} rows", where=f"{path}:vocab_size"
        )
    return rows


def size_of(corpus: Input) -> int:
    """Bytes of a corpus, or of the files that will be one."""
    if "bytes" in corpus.facts:
        return int(corpus.facts["bytes"])
    if not corpus.exists:
        return 0
    files = [corpus.path] if corpus.path.is_file() else [path for path in corpus.path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
