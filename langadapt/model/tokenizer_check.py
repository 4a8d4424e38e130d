"""Is a tokenizer.json sound? Asked before the native library sees it in this process.

The library reports a broken file by a bare `Exception`, and by a panic of its Rust code where a rule of the file does
not work on some text (measured: a character map that cannot be parsed, an empty pattern to replace, a regular
expression that gives up). A rule may also grow a text without end. So the structure is checked here, and then a child
process with limits on time and memory loads the file and cuts a few texts.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from langadapt.core.child import MOST_MEMORY, run_child
from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object, sha256_file

NAME = "tokenizer.json"
# Gemma's file has 33 MB, the largest known to us 41 MB.
MAX_BYTES = 256 * 1024 * 1024
# Loading Gemma's takes 2 s on one core, an ordinary one 0.2 s.
_SECONDS = 60
_PROBE = Path(__file__).with_name("tokenizer_probe.py")
_TEXTS = (
    "",
    " ",
    "Hello, world! 1848 + 1956 = 3804.\n\tTwo  spaces",
    "árvíztűrő tükörfúrógép Ελληνικά русский हिन्दी ไทย 한국어 老房子 \U0001f469\u200d\U0001f4bb",
    # what patterns that try every way to cut a text fail on
    "a" * 2000 + "!",
    " " * 2000 + "\n" * 200,
    "1" * 500,
    "ab " * 300,
    "\u0301" * 50 + "\x00\x07\ue000\ufffd",
)


def check_tokenizer(place: Path) -> None:
    """DataError if a tokenizer.json, or the one of a folder, is damaged or does not work; nothing if there is none."""
    path = place if place.is_file() else place / NAME
    if path.is_file():
        _check(str(path), sha256_file(path))


@lru_cache(maxsize=256)
def _check(place: str, digest: str) -> None:
    """One look at each content; `digest` is part of the key alone."""
    spec = read_json_object(Path(place), max_bytes=MAX_BYTES)
    _check_structure(spec, place)
    in_child(place, list(_TEXTS) + [token["content"] for token in spec.get("added_tokens", [])[:50]])


def _check_structure(spec: dict[str, Any], place: str) -> None:
    model = spec.get("model")
    if not isinstance(model, dict):
        raise DataError("it has no vocabulary", where=place)
    vocabulary = model.get("vocab")
    if not vocabulary:
        raise DataError("it has no vocabulary", where=place)
    if isinstance(vocabulary, dict):
        for piece, number in vocabulary.items():
            _check_id(piece, number, place)
    elif model.get("type", "Unigram") != "Unigram" or not isinstance(vocabulary, list):
        raise DataError(f"its vocabulary is a {type(vocabulary).__name__}, not an object", where=place)
    elif not all(_is_scored(entry) for entry in vocabulary):
        raise DataError("its vocabulary is not a list of pieces with scores", where=place)
    merges = model.get("merges", [])
    if not isinstance(merges, list):
        raise DataError(f"its merges are a {type(merges).__name__}, not a list", where=place)
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise DataError(f"merge {rank} is `{merge}`, not a pair", where=place)
    added = spec.get("added_tokens", [])
    if not isinstance(added, list):
        raise DataError(f"its added tokens are a {type(added).__name__}, not a list", where=place)
    for token in added:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content:
            raise DataError(f"an added token has no text: {token!r:.80}", where=place)
        _check_id(content, token.get("id"), place)


def _is_scored(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    piece, score = entry
    return isinstance(piece, str) and isinstance(score, int | float) and not isinstance(score, bool)


def _check_id(piece: str, number: object, place: str) -> None:
    if type(number) is not int or not 0 <= number < 2**32:
        raise DataError(f"the id of `{piece:.80}` is {number!r:.80}, not a number from 0 upwards", where=place)


def in_child(place: str, texts: Sequence[str], *, library: str = "tokenizers") -> bytes:
    """Load a tokenizer file in a process of its own and cut texts there; what that process wrote.

    DataError if it ends by an error or a signal, or takes too long.
    """
    ended = run_child(
        _PROBE.read_text(encoding="utf-8"),
        [place],
        seconds=_SECONDS,
        memory_bytes=MOST_MEMORY,
        given=json.dumps(list(texts)).encode(),
        environment={"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
    )
    if ended.code is None:
        raise DataError(f"it does not work: cutting a few texts did not end in {_SECONDS} s", where=place)
    if ended.code:
        why = ended.said.partition(": ")[2] if ended.code > 0 else ""
        raise DataError(
            f"the {library} library cannot use it: {why or f'it ended with code {ended.code}'}", where=place
        )
    return ended.output
