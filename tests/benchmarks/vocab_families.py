"""What changing the vocabulary does, measured for each tokenizer family, way (mode) and language; makes a table of it.

    python -m tests.benchmarks.vocab_families WORK --text hu=hu.jsonl --text en=en.jsonl --other essays.jsonl \\
        --lid lid.176.ftz --model smollm2=FOLDER_OR_GGUF --model gemma3=FOLDER_OR_GGUF [--langs hu,fi] \\
        [--only FAMILY/MODE/LANG]... [--again]
    python -m tests.benchmarks.vocab_families WORK --table docs/vocabulary-measured.md

Each cell runs alone in a forked process with one thread, and what it gave is appended to WORK/results.jsonl; a cell
that is there is left out unless `--again`. `--only` takes wild cards. Corpora (by `prepare`), tokenizers that stand
for families (family_tokenizers.py) and results are kept in WORK. What is counted here is counted by this script on the
written folder, not taken from what the verb says, except `unreachable`, which is a check of the verb. Seconds are of
the processor and without imports, which the forks share; memory is with them.

Modes: `append`; `append-script` (with `guard_rule: script`); `append-unguarded` (no guard text); `append-free` (nothing
is guarded, not even markup and numbers: plain continued training, BPE only); `reserved`; `same-size`; `same-size-more`
(guarded by all of the English text, not by 3 MB of it); `trim-vocab`; `train-tokenizer`. English is protected.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.family_tokenizers import MAKERS, MULTILINGUAL, make
from tests.benchmarks.vocab_table import fill

if TYPE_CHECKING:
    from langadapt.vocab.tokenizer_file import TokenizerFile

SIZE, NEW_SIZE = 2000, 8000
MODES = (
    "append",
    "append-script",
    "append-unguarded",
    "append-free",
    "reserved",
    "same-size",
    "same-size-more",
    "trim-vocab",
    "train-tokenizer",
)
SAME_SIZE = ("same-size", "same-size-more")
# Text that tokenizers are trained on and tokens are learned from; what the English guard is cut to.
TRAINING_BYTES, EACH_LANGUAGE_BYTES = 3_000_000, 300_000
TARGET_BYTES, GUARD_BYTES, ESSAY_BYTES = 2_000_000, 3_000_000, 500_000
# All that there is.
MORE_GUARD_BYTES = 64_000_000
# Only T5's own tokens need to be asked for by name.
RESERVED = {"t5-style": "<extra_id_[0-9]+>"}


def corpus(work: Path, lang: str) -> Path:
    """The prepared corpus of a language; `en-other` is the English of another domain."""
    return work / "corpora" / lang


def part(folder: Path, split: str, cap: int) -> Iterator[str]:
    """Texts of a corpus until there are `cap` bytes."""
    from langadapt.corpus.store import documents

    taken = 0
    for document in documents(folder, split):  # type: ignore[arg-type]
        taken += len(document.text.encode())
        if taken > cap:
            return
        yield document.text


def guard_bytes(mode: str) -> int:
    """English that is protected, at most."""
    return MORE_GUARD_BYTES if mode == "same-size-more" else GUARD_BYTES


def run_verb(mode: str, family: str, lang: str, model: str, work: Path, out: Path) -> dict[str, Any]:
    """Make the tokenizer; facts that only the verb knows."""
    import langadapt

    target, guard = corpus(work, lang), corpus(work, "en")
    caps = {"max_corpus_bytes": TARGET_BYTES}
    if mode == "append-free":
        return _free(target, model, out)
    if mode == "trim-vocab":
        made = langadapt.trim_vocab(out=out, model=model, corpora=[target, guard], max_corpus_bytes=GUARD_BYTES)
    elif mode == "train-tokenizer":
        made = langadapt.train_tokenizer(out=out, model=model, corpora=[target], lang=lang, size=NEW_SIZE, **caps)
    else:
        more: dict[str, Any] = {"mode": {"reserved": mode, **dict.fromkeys(SAME_SIZE, "same-size")}.get(mode, "append")}
        if mode == "reserved" and family in RESERVED:
            more["reserved_pattern"] = RESERVED[family]
        more |= {"guard_rule": "script"} if mode == "append-script" else {}
        guards = [] if mode == "append-unguarded" else [guard]
        more |= caps | {"max_guard_bytes": guard_bytes(mode)}
        made = langadapt.extend_vocab(out=out, model=model, corpus=target, guard=guards, lang=lang, size=SIZE, **more)
    checks = json.loads((out / "checks.json").read_text(encoding="utf-8"))["checks"]
    facts = {key: made.facts.get(key) for key in ("added", "missing", "stepping_stones", "vocabulary_after", "dropped")}
    return facts | {"unreachable": checks["reachable"]["broken"] if "reachable" in checks else None}


def _free(target: Path, model: str, out: Path) -> dict[str, Any]:
    """Continued training of the merges with nothing guarded at all."""
    from langadapt.core.errors import DataError
    from langadapt.core.progress import Progress
    from langadapt.model.load import resolve
    from langadapt.vocab import tokenizer_file
    from langadapt.vocab.checks import reachable
    from langadapt.vocab.family import Wish, detect
    from langadapt.vocab.growing import BpeFamily
    from langadapt.vocab.guard import Guard
    from langadapt.vocab.words import count_words

    folder = resolve(model)
    base = tokenizer_file.read(folder)
    family = detect(base)
    if not isinstance(family, BpeFamily):
        raise DataError("no merges to go on from")
    words = count_words(base, part(target, "train", TARGET_BYTES))
    growth = family.grow(words, Guard.of(base, ()), Wish(size=SIZE), Progress())
    out.mkdir(parents=True)
    tokenizer_file.write(base, growth.merges, folder, out)
    new = tokenizer_file.read(out)
    found = {"added": len(growth.tokens), "missing": growth.notes["missing"], "vocabulary_after": new.next_id}
    return found | {"unreachable": len(reachable(base, new).broken), "stepping_stones": len(growth.stepping_stones)}


def measure(mode: str, model: str, lang: str, work: Path, out: Path) -> dict[str, Any]:
    """Both tokenizers on text that neither has seen, and on every guarded word."""
    from langadapt.model.load import resolve
    from langadapt.vocab import tokenizer_file
    from langadapt.vocab.guard import Guard
    from langadapt.vocab.metrics import lines_of
    from langadapt.vocab.words import count_words

    base, new = tokenizer_file.read(resolve(model)), tokenizer_file.read(out)
    target = list(part(corpus(work, lang), "held-out", 4_000_000))
    english = lines_of(part(corpus(work, "en"), "held-out", 4_000_000))
    other = lines_of(part(corpus(work, "en-other"), "held-out", ESSAY_BYTES))
    words = Guard.of(base, count_words(base, part(corpus(work, "en"), "train", guard_bytes(mode)))).words
    same_words = base.spec.get("pre_tokenizer") == new.spec.get("pre_tokenizer")
    return {
        "guarded_types": len(words),
        "guarded_types_changed": _changed(base, new, words, stage=True) if same_words else None,
        "lines": len(english),
        "lines_changed": _changed(base, new, english),
        "other_lines": len(other),
        "other_lines_changed": _changed(base, new, other),
        "target_bytes": sum(len(text.encode()) for text in target),
        "tokens": {"base": _tokens(base, target), "adapted": _tokens(new, target)},
        "unknown": {"base": _unknown(base, target), "adapted": _unknown(new, target)},
    }


def _changed(base: "TokenizerFile", new: "TokenizerFile", texts: Sequence[str], *, stage: bool = False) -> int:
    """How many texts are cut into other pieces than before (by bytes: ids are renumbered by some modes)."""
    from langadapt.vocab.tokenizer_file import encode_all

    cut = []
    for file in (base, new):
        contents = _contents(file)
        ids = encode_all(file.model_stage() if stage else file.tokenizer, texts)
        cut.append([[contents[number] for number in one] for one in ids])
    return sum(before != after for before, after in zip(*cut, strict=True))


def _contents(file: "TokenizerFile") -> dict[int, bytes]:
    found = {}
    for piece, number in file.pieces.items():
        found[number] = piece.encode() if piece in file.added else file.spelling.content(piece)
    return found


def _tokens(file: "TokenizerFile", texts: Sequence[str]) -> int:
    from langadapt.vocab.metrics import token_count

    return token_count(file.tokenizer, texts)


def _unknown(file: "TokenizerFile", texts: Sequence[str]) -> int:
    from langadapt.vocab.tokenizer_file import encode_all

    if file.unknown is None:
        return 0
    return sum(ids.count(file.unknown) for ids in encode_all(file.tokenizer, texts, batch=1000))


def cell(family: str, mode: str, lang: str, model: str, work: Path) -> dict[str, Any]:
    """Run one and measure it."""
    from langadapt.core.errors import LangadaptError
    from langadapt.core.host import peak_memory_bytes

    out = work / "cells" / f"{family}-{mode}-{lang}"
    shutil.rmtree(out, ignore_errors=True)
    try:
        found = run_verb(mode, family, lang, model, work, out)
    except LangadaptError as error:
        return {"refused": error.message}
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {"seconds": used.ru_utime + used.ru_stime, "memory": peak_memory_bytes()}
    return found | measure(mode, model, lang, work, out)


def apart(work: Path, task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a task gives in a process of its own; `failed` if it does not end well."""
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(answer, task))
    child.start()
    child.join()
    if child.exitcode:
        return {"failed": f"exit {child.exitcode}"}
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _answer(path: Path, task: Callable[[], dict[str, Any]]) -> None:
    path.write_text(json.dumps(task(), ensure_ascii=False), encoding="utf-8")


def cells(only: Sequence[str], families: Sequence[str], langs: Sequence[str]) -> list[tuple[str, str, str]]:
    """All cells, or those that a pattern `family/mode/lang` names."""
    return [
        cell
        for cell in product(families, MODES, langs)
        if any(fnmatchcase("/".join(cell), pattern) for pattern in only or ["*"])
    ]


def set_up(asked: argparse.Namespace) -> dict[str, str]:
    """Corpora and tokenizers that are not there yet; the tokenizer of each family."""
    work: Path = asked.work
    work.mkdir(parents=True, exist_ok=True)
    texts = dict(item.split("=", 1) for item in asked.text)
    if asked.other:
        texts["en-other"] = asked.other
    for lang, path in texts.items():
        if not (folder := corpus(work, lang)).exists():
            given: dict[str, Any] = {"text": [path], "lang": lang.partition("-")[0], "lid_model": asked.lid}
            given |= {"held_out_share": 1.0} if lang == "en-other" else {}
            apart(work, partial(prepared, folder, given))
    models: dict[str, str] = {}
    for name, path in (item.split("=", 1) for item in asked.model):
        models[name] = apart(work, partial(converted, path))["folder"]
    for family in MAKERS:
        folder = work / "tokenizers" / family
        models[family] = str(folder)
        if not folder.exists():
            several = [lang for lang in sorted(texts) if lang not in ("en", "en-other")]
            apart(work, partial(train, work, family, several, folder))
            print(f"trained {folder}", file=sys.stderr, flush=True)
    return models


def converted(model: str) -> dict[str, Any]:
    """A GGUF file is converted once, which is not part of any cell."""
    from langadapt.model.load import resolve

    return {"folder": str(resolve(model))}


def prepared(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """A corpus."""
    import langadapt

    return dict(langadapt.prepare(out=folder, **given).facts)


def train(work: Path, family: str, langs: Sequence[str], folder: Path) -> dict[str, Any]:
    """The tokenizer that stands for a family."""
    sample = list(part(corpus(work, "en"), "train", TRAINING_BYTES))
    for lang in langs if family in MULTILINGUAL else ():
        sample += part(corpus(work, lang), "train", EACH_LANGUAGE_BYTES)
    make(family, sample, folder)
    return {}


def results(work: Path) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """The last result of each cell."""
    path = work / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(found["family"], found["mode"], found["lang"]): found for found in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--text", action="append", default=[], help="LANG=FILE, en among them")
    parser.add_argument("--other", help="English of another domain")
    parser.add_argument("--model", action="append", default=[], help="NAME=FOLDER or .gguf: real tokenizers")
    parser.add_argument("--lid", help="fastText language identification for prepare")
    parser.add_argument("--langs", default="hu")
    parser.add_argument("--only", action="append", default=[], help="FAMILY/MODE/LANG, with wild cards")
    parser.add_argument("--again", action="store_true", help="also cells that have a result")
    parser.add_argument("--table", type=Path, help="write the tables into this page and do nothing else")
    asked = parser.parse_args()
    if asked.table:
        fill(asked.table, results(asked.work), MODES)
        return
    os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    import transformers

    transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast  # noqa: B018 - imported once for all forks
    models = set_up(asked)
    for family, mode, lang in cells(asked.only, list(models), asked.langs.split(",")):
        if not asked.again and "seconds" in results(asked.work).get((family, mode, lang), {}):
            continue
        found = {"family": family, "mode": mode, "lang": lang}
        found |= apart(asked.work, partial(cell, family, mode, lang, models[family], asked.work))
        with (asked.work / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(found, ensure_ascii=False) + "\n")
        print(f"{family}/{mode}/{lang}", found, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
