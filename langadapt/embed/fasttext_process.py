"""fastText for word vectors: the only file of this room that imports it, and it does so in a process of its own.

Its native code crashes, hangs or loads wrongly on damaged files, and it cannot be interrupted while it trains. A child
takes nothing along when it ends, and it can be ended at any time. Training uses one thread: with more, fastText's
result depends on their timing.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core import interrupt
from langadapt.core.child import MOST_MEMORY, run_child
from langadapt.core.errors import DataError
from langadapt.core.fasttext_file import check_whole
from langadapt.core.io import pretty_json, read_json_object, write_durably
from langadapt.embed.types import Floats, Ints

_CODE = "import sys; from langadapt.embed.fasttext_process import child; child(sys.argv[1])"
# Loading runs at the speed of the disk; a file that takes longer than this hangs.
_LOAD_SECONDS = 60.0
_LOAD_BYTES_A_SECOND = 10e6
# fastText's name for the end of a line.
END_OF_LINE = "</s>"


def train(lines: Iterable[str], settings: dict[str, Any], most_words: int) -> tuple[list[str], Ints, Floats]:
    """Words by falling count, their counts [n] and vectors [n, dim], learned from lines of words between blanks.

    `settings` are those of fastText's `train_unsupervised`. DataError if no word is frequent enough.
    """
    with tempfile.TemporaryDirectory(prefix="langadapt-vectors-") as place:
        folder = Path(place)
        with (folder / "text").open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                interrupt.poll()
                file.write(line + "\n")
        job = {"do": "train", "settings": settings | {"thread": 1, "verbose": 0}, "most_words": most_words}
        _run(folder, job, None, "the text for word vectors")
        return _words(folder)


def read_words(path: Path, most_words: int) -> tuple[list[str], Ints, Floats]:
    """The most frequent words of a .bin file with counts and vectors. DataError for a damaged file."""
    with tempfile.TemporaryDirectory(prefix="langadapt-vectors-") as place:
        _load(Path(place), path, {"most_words": most_words})
        return _words(Path(place))


def compose(path: Path, strings: Sequence[str]) -> Floats:
    """Vectors [n, dim] that a .bin file gives to strings, known or not, from their letter n-grams."""
    with tempfile.TemporaryDirectory(prefix="langadapt-vectors-") as place:
        _load(Path(place), path, {"strings": list(strings)})
        found: Floats = np.load(Path(place) / "table.npy", allow_pickle=False)
        return found


def _load(folder: Path, path: Path, job: dict[str, Any]) -> None:
    check_whole(path)
    seconds = _LOAD_SECONDS + path.stat().st_size / _LOAD_BYTES_A_SECOND
    _run(folder, {"do": "load", "path": str(path.resolve()), **job}, seconds, f"`{path}`")


def _words(folder: Path) -> tuple[list[str], Ints, Floats]:
    found = read_json_object(folder / "words.json", max_bytes=2**31)
    table: Floats = np.load(folder / "table.npy", allow_pickle=False)
    return found["words"], np.array(found["counts"], dtype=np.int64), table


def _run(folder: Path, job: dict[str, Any], seconds: float | None, what: str) -> None:
    """Have a child do the job; DataError about `what` if it fails, crashes, or takes longer than `seconds`."""
    write_durably(folder / "job.json", pretty_json(job))
    path = job.get("path")
    # the whole file is read into memory, and what is wanted of it is copied
    memory = None if path is None else MOST_MEMORY + 2 * Path(path).stat().st_size
    ended = run_child(_CODE, [str(folder)], seconds=seconds, memory_bytes=memory)
    if ended.code is None:
        raise DataError(f"{what} is a damaged fastText model: loading it did not end in {seconds:.0f} s")
    failure = folder / "failure"
    if failure.is_file():
        said = failure.read_text(encoding="utf-8")
        hint = "give more text: no word of it stands there often enough" if "Empty vocabulary" in said else None
        raise DataError(f"{what}: fastText says: {said}", hint=hint)
    if ended.code != 0:
        raise DataError(f"{what}: fastText ended with code {ended.code}{': ' + ended.said if ended.said else ''}")


def child(place: str) -> None:
    """What the child does: the job in `job.json`, its result beside it, or a sentence in `failure`."""
    import fasttext

    folder = Path(place)
    job = read_json_object(folder / "job.json", max_bytes=2**31)
    # fasttext prints a deprecation line on every load
    fasttext.FastText.eprint = lambda *words: None
    try:
        if job["do"] == "train":
            model = fasttext.train_unsupervised(str(folder / "text"), **job["settings"])
        else:
            model = fasttext.load_model(job["path"])
    except (ValueError, TypeError) as error:  # TypeError: a setting that it does not have
        write_durably(folder / "failure", str(error))
        return
    if "strings" in job:
        words, counts = job["strings"], []
    else:
        names, frequencies = model.get_words(include_freq=True, on_unicode_error="replace")
        found = [(word, int(count)) for word, count in zip(names, frequencies, strict=True) if word != END_OF_LINE]
        words = [word for word, _ in found[: job["most_words"]]]
        counts = [count for _, count in found[: job["most_words"]]]
    np.save(folder / "table.npy", _vectors(model, words))
    write_durably(folder / "words.json", pretty_json({"words": words, "counts": counts}))


def _vectors(model: Any, words: Sequence[str]) -> Floats:
    """Vectors [words, dim] as fastText writes them into .vec files: the mean of the rows of a word and its n-grams.

    The library's own `get_word_vector` scales them to length 1 since fasttext-community 0.11, which would change every
    mean and every rotation that is made of them.
    """
    rows = None if model.is_quantized() else np.asarray(model.f.getInputMatrix())
    table = np.zeros((len(words), model.get_dimension()), dtype=np.float32)
    for place, word in enumerate(words):
        ids = model.get_subwords(word)[1]
        if len(ids):
            parts = [model.get_input_vector(id) for id in ids] if rows is None else rows[ids]
            table[place] = np.mean(parts, axis=0, dtype=np.float32)
    return table
