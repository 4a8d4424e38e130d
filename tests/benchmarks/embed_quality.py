"""How good the rows of each method are: bits per byte before any training, and after the same short training.

    python -m tests.benchmarks.embed_quality WORK --model FOLDER_OR_GGUF --target hu=CORPUS --source en=CORPUS \\
        [--tokenizer FOLDER | --size 16k] [--method NAME]... [--rows NAME=FILE.safetensors]... [--give KEY=PATH]... \\
        [--seeds 2] [--steps 100] [--replay 0.2] [--threads 1] [--only METHOD/SEED]... [--again]
    python -m tests.benchmarks.embed_quality WORK --table docs/embeddings-measured.md

Corpora are artifacts of `prepare`. A cell is a method and a seed: rows by `init-embeddings`, both texts scored, `cpt`
for `--steps` steps of 1,024 tokens with default settings (no stop for forgetting), both texts scored again. What it
gave is appended to WORK/results.jsonl; a cell that is there is left out unless `--again`, so a stopped run goes on.
`--only` takes wild cards. `base` is the model with its own tokenizer, trained for as many tokens. All methods see the
same stream in the same order: `mix` is made once a seed, and once for the base. `--rows` adds rows that another tool
made, for the same tokenizer: a method `rows:NAME`, see docs/methods/rows.md. `--give` hands inputs to the methods
that want them (`dictionary`, `helper`, `base_vectors`, ...); a method that lacks one is left out.

Scored are the beginnings (1,500 bytes) of held-out documents in the order of a hash, about 9 kB a language, cut into
segments of 300 bytes for the intervals; every segment sees its document from the beginning.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.core.io import sha256_file
from tests.benchmarks.cells import add_result, fill, kept, pair, results, say, segment_scores, wanted
from tests.benchmarks.embed_table import BEGIN, table

SCORED_BYTES, DOCUMENT_BYTES, SEGMENT_BYTES = 9000, 1500, 300
STEP_TOKENS = 1024
BASE = "base"


def passages(corpus: Path) -> list[Any]:
    """The fixed set of one language."""
    from langadapt.corpus.store import documents
    from langadapt.model.cuts import cut_points
    from langadapt.model.score import ScoredText

    found, total = [], 0
    ranked = sorted(documents(corpus, "held-out"), key=lambda one: hashlib.blake2b(one.id.encode()).digest())
    for document in ranked:
        ends = [end for end in cut_points(document.text, SEGMENT_BYTES) if end <= DOCUMENT_BYTES]
        if total >= SCORED_BYTES or not ends:
            continue
        found.append(ScoredText(document.id, document.text, DOCUMENT_BYTES, tuple(ends)))
        total += ends[-1]
    return found


def score(folder: Path, separator: str, corpora: Mapping[str, Path]) -> dict[str, Any]:
    """Nats, bytes and tokens of every segment, by language; and the rows of the model, for guessing."""
    from langadapt.model.compute import choose_device
    from langadapt.model.facts import model_facts
    from langadapt.model.load import load_model, load_tokenizer

    model, tokenizer = load_model(folder).to(choose_device()), load_tokenizer(folder)
    prefix = tokenizer.get_vocab()[separator]
    found: dict[str, Any] = {"rows": model_facts(folder)["rows"]}
    for lang, corpus in corpora.items():
        found[lang] = segment_scores(model, tokenizer, passages(corpus), prefix, "fp32")
    return found


class Cells:
    """Everything that is made below the work folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.work: Path = given.work
        self.target, self.source = (dict(given.target), dict(given.source))
        self.corpora = {lang: Path(path) for lang, path in (*self.target.items(), *self.source.items())}
        self.more = {key: str(path) for key, path in given.give}
        self.rows = dict(given.rows)

    def tokenizer(self) -> Path:
        """The one that was given, or a new one of the target text."""
        import langadapt

        if self.given.tokenizer:
            return Path(self.given.tokenizer)
        made = langadapt.train_tokenizer(
            out=self.work / "tokenizer", model=self.given.model, corpora=[*self.target.values()], size=self.given.size
        )
        return Path(made.path)

    def names(self) -> list[str]:
        """Base, methods whose needs are met, rows of other tools."""
        from langadapt.core.registry import load_method, method_names
        from langadapt.embed.inputs import ALWAYS

        there = {"corpus", *self.more}
        found = [BASE]
        for name in self.given.method or method_names("embed"):
            needs = [need.split("|") for need in load_method("embed", name).facts.needs if not need.endswith("?")]
            lacks = [ways for ways in needs if not {*there, *ALWAYS} & set(ways)]
            if not lacks:
                found.append(name)
            elif name != "rows":
                say(f"{name}: left out, it needs {' or '.join(lacks[0])} (--give {lacks[0][0]}=PATH)")
        return found + [f"rows:{name}" for name in self.rows]

    def start(self, name: str, seed: int, out: Path) -> Path:
        """The model that a cell begins with."""
        import langadapt
        from langadapt.core.registry import load_method
        from langadapt.model.load import resolve

        if name == BASE:
            return resolve(self.given.model)
        method, _, file = name.partition(":")
        needs = {way for need in load_method("embed", method).facts.needs for way in need.rstrip("?").split("|")}
        offered = {**self.more, "corpus": str(next(iter(self.target.values())))}
        values = {key: value for key, value in offered.items() if key in needs}
        if values.get("helper") == "train":
            values["corpus"] = offered["corpus"]
        values |= {"rows": str(self.rows[file])} if file else {}
        made = langadapt.init_embeddings(
            out=out, model=self.given.model, tokenizer=self.tokenizer(), method=method, seed=seed, **values
        )
        return Path(made.path)

    def data(self, kind: str, model: Path, seed: int) -> tuple[Path, str]:
        """The stream of a seed, made with the first model that needs it, and the token between its documents."""
        import langadapt
        from langadapt.model.load import load_tokenizer

        place = self.work / "data" / f"{kind}-{seed}"
        separator = place.with_suffix(".json")
        if not separator.is_file():
            shutil.rmtree(place, ignore_errors=True)
            made = langadapt.mix(
                out=place,
                model=model,
                corpora={lang: str(path) for lang, path in self.corpora.items()},
                replay=dict.fromkeys(self.source, self.given.replay),
                seed=seed,
            )
            token = load_tokenizer(model).convert_ids_to_tokens(made.facts["document_separator"])
            separator.write_text(json.dumps(token), encoding="utf-8")
        return place, str(json.loads(separator.read_text(encoding="utf-8")))

    def before(self, model: Path, separator: str) -> dict[str, Any]:
        """Scores of a model that was not trained; weights that another seed gave too are scored once."""
        files = [model] if model.is_file() else sorted(model.glob("model*.safetensors"))
        name = hashlib.sha256("".join([separator, *map(sha256_file, files)]).encode()).hexdigest()[:32]
        return kept(self.work / "before" / f"{name}.json", lambda: score(model, separator, self.corpora))

    def cell(self, name: str, seed: int) -> dict[str, Any]:
        """One method with one seed, from its rows to the scores after training."""
        import langadapt

        folder = self.work / "cells" / f"{name.replace(':', '-')}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = self.start(name, seed, folder / "init")
        data, separator = self.data(BASE if name == BASE else "new", model, seed)
        found = {"method": name, "seed": seed, "steps": self.given.steps, "target": list(self.target)}
        found["before"] = self.before(model, separator)
        trained = langadapt.cpt(
            out=folder / "trained",
            model=model,
            data=data,
            steps=self.given.steps,
            batch_tokens=STEP_TOKENS,
            max_forgetting=1000.0,
            probe_every=self.given.steps,
            seed=seed,
            threads=self.given.threads,
        )
        found["after"] = score(Path(trained.path), separator, self.corpora)
        if name != BASE:
            found["init_seconds"] = json.loads((model / "run.json").read_text(encoding="utf-8"))["seconds"]
        shutil.rmtree(folder)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--tokenizer")
    parser.add_argument("--size", default="16k")
    for name in ("--target", "--source", "--rows", "--give"):
        parser.add_argument(name, type=pair, action="append", default=[])
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--replay", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.table:
        found = results(given.work, "method")
        if not found:
            parser.error(f"{given.work} holds no results")
        fill(given.table, BEGIN, table(found))
        return
    if not (given.model and given.target and given.source):
        parser.error("--model, --target and --source are needed")
    import torch

    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    cells = Cells(given)
    there = {} if given.again else results(given.work, "method")
    for name, seed in wanted(cells.names(), given.seeds, given.only):
        if (name, seed) in there and there[name, seed]["steps"] == given.steps:
            continue
        say(f"{name}, seed {seed}")
        add_result(given.work, cells.cell(name, seed))


if __name__ == "__main__":
    main()
