"""Initialisers beside the packages that published them: the same rows? how long, how much memory?

    python -m tests.benchmarks.embed_peers MODEL SIZE --corpus hu.jsonl --source-text en.jsonl --dictionary en-hu.tsv \\
        --wechsel-python PY --mergekit-python PY --work DIR [--only wechsel,focus,subword,omp] [--page docs/PAGE.md]

MODEL is any model of langadapt's; every peer gets it as a Hugging Face folder. A tokenizer of SIZE tokens is trained
on the corpus, word and token vectors are learned once, with one thread, and both sides read the same files: what is
timed is the method alone ("rows") and the whole process with loading and writing the model ("all"), in processor
seconds of one thread. WECHSEL 0.0.4 and deepfocus 1.0.1 stand in one virtual environment, mergekit 0.1.5 in another
(`pip install wechsel==0.0.4 deepfocus==1.0.1`, `pip install mergekit==0.1.5`); none is a dependency. The donor of
tokensurgeon is a model of one layer whose table holds the token vectors. Results of finished cells stay in DIR.

Rows are compared where both sides make them of the same things; `same` is the share that agree within 1e-5 of a row's
length. Nothing passes or fails by speed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "peers"
BEGIN, END = "<!-- table made by tests/benchmarks/embed_peers.py, {size} tokens -->", "<!-- end of {size} -->"
# Without word vectors and without writing: what DESIGN asks for is the ratio of these.
_NAMES = {"wechsel": "wechsel 0.0.4", "focus": "deepfocus 1.0.1", "subword": "tokensurgeon 0.1.5, sub-word mean",
          "omp": "tokensurgeon 0.1.5, OMP k=64"}  # fmt: skip
_OURS = {"wechsel": "nearest tokens", "focus": "like tokens", "subword": "pieces", "omp": "sum of shared tokens"}
_WORD_VECTORS = {"model": "skipgram", "dim": 100, "epoch": 5, "minCount": 3, "bucket": 200_000, "thread": 1}
_TOKEN_VECTORS = {"model": "cbow", "dim": 100, "epoch": 3, "minCount": 10, "neg": 10, "bucket": 200_000, "thread": 1}


@dataclass(frozen=True)
class Place:
    """Files that both sides read."""

    work: Path
    model: Path
    size: int
    dictionary: Path

    @property
    def tokenizer(self) -> Path:
        return self.work / f"tokenizer-{self.size}"

    def file(self, name: str) -> Path:
        return self.work / name

    def cell(self, name: str) -> Path:
        return self.work / f"{self.size}-{name}"


def texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def prepare(place: Place, corpus: Path, source_text: Path) -> None:
    """Tokenizer, vectors of words and of tokens, and the donor: each made once."""
    if not place.tokenizer.exists():
        flags = ["--size", str(place.size), "-o", "min_count=1", "--lang", "hu", "--out", str(place.tokenizer), "-q"]
        langadapt("train-tokenizer", str(place.model), str(corpus), *flags)
    words = {"new": corpus, "base": source_text}
    for name, path in words.items():
        learn(place.file(f"{name}.bin"), (" ".join(text.split()) for text in texts(path)), _WORD_VECTORS)
    tokens_bin = place.file(f"tokens-{place.size}.bin")
    if not tokens_bin.exists():
        learn(tokens_bin, in_pieces(place.tokenizer, corpus), _TOKEN_VECTORS)
    if not place.file(f"donor-{place.size}").exists():
        make_donor(place.tokenizer, tokens_bin, place.file(f"donor-{place.size}"))


def langadapt(*flags: str) -> None:
    subprocess.run([sys.executable, "-c", "from langadapt.cli.app import main; main()", *flags], check=True)


def learn(out: Path, lines: Iterator[str], settings: Mapping[str, Any]) -> None:
    if out.exists():
        return
    import fasttext

    text = out.with_suffix(".txt")
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fasttext.train_unsupervised(str(text), verbose=0, **settings).save_model(str(out))
    text.unlink()


def in_pieces(tokenizer: Path, corpus: Path) -> Iterator[str]:
    from tokenizers import Tokenizer

    cutter = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    for text in texts(corpus):
        yield " ".join(cutter.encode(text, add_special_tokens=False).tokens)


def make_donor(tokenizer: Path, tokens_bin: Path, out: Path) -> None:
    """A Llama of one layer: its table holds the vectors of tokens, or their composed ones."""
    import fasttext
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vectors = fasttext.load_model(str(tokens_bin))
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    config = LlamaConfig(vocab_size=max(vocabulary.values()) + 1, hidden_size=100, intermediate_size=128,
                         num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for piece, id in vocabulary.items():
        model.model.embed_tokens.weight.data[id] = torch.from_numpy(vectors.get_word_vector(piece))
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out / name)


def commands(place: Place, wechsel_python: str, mergekit_python: str) -> dict[str, tuple[list[str], list[str]]]:
    """Method -> (the peer's command, ours), without the last word of the peer's, the place of its results."""
    model, tokenizer, donor = str(place.model), str(place.tokenizer), str(place.file(f"donor-{place.size}"))
    tokens = str(place.file(f"tokens-{place.size}.bin"))
    base, new = str(place.file("base.bin")), str(place.file("new.bin"))
    us = [sys.executable, "-m", "tests.benchmarks.peers.ours"]
    text = ["--dictionary", str(place.dictionary), "--vectors", new, "--base-vectors", base]
    surgeon = [mergekit_python, str(HERE / "mergekit_rows.py"), model, donor]
    string = ["-o", "overlap=string"]

    def ours(name: str, vectors: str, *flags: str) -> list[str]:
        return [*us, str(place.cell(f"{name}-ours")), vectors, model, tokenizer, *flags]

    def out(name: str) -> str:
        return str(place.cell(f"{name}-peer"))

    script = str(HERE / "wechsel_rows.py")
    return {
        "wechsel": (
            [wechsel_python, script, model, tokenizer, base, new, str(place.dictionary), out("wechsel")],
            ours("wechsel", "-", "--method", "wechsel", *text, "-o", "method_options.tokens=ngrams", "-o",
                 "overlap=special"),
        ),
        "focus": (
            [wechsel_python, str(HERE / "deepfocus_rows.py"), model, tokenizer, tokens, out("focus")],
            ours("focus", tokens, "--method", "focus", "--corpus", str(place.file("empty.txt")), *string),
        ),
        "subword": (
            [*surgeon, "subword", out("subword")],
            ours("subword", "-", "--method", "subtoken-mean", "-o", "method_options.skip_bare_space=false", *string),
        ),
        "omp": (
            [*surgeon, "omp", out("omp"), "-k", "64"],
            ours("omp", "-", "--method", "omp", "--helper", donor, "-o", "method_options.norm_cap=null", "-o",
                 "method_options.unit_atoms=false", *string),
        ),
    }  # fmt: skip


def measured(command: list[str], out: Path) -> dict[str, Any]:
    """Run it alone with one thread, unless its results are there."""
    if not (out / "measured.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (out / "log").open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads | offline)
        if done.returncode:
            lines = (out / "log").read_text(encoding="utf-8", errors="replace").splitlines()
            return {"failed": lines[-1] if lines else f"exit {done.returncode}"}
    found: dict[str, Any] = json.loads((out / "measured.json").read_text())
    return found


def same_rows(place: Place, name: str) -> dict[str, int]:
    """New rows that agree within 1e-5 of their length, among those that both sides make of the same things.

    Left out: rows that we do not make by the method itself (the peer draws them at random), tokens that are no text of
    their own (the peers decode each token alone, and all that are no whole characters become one), rows that have such
    a token as a part, and for tokensurgeon's sub-word mean all that is not ASCII: it reads bytes as letters. Of tokens
    with equal vectors (`a` and ` a`) at the tenth place of `wechsel` either may be taken; such rows count as different.
    """
    from langadapt.embed.rowmap import load_maps
    from langadapt.model.tables import open_tables

    ours = load_maps(place.cell(f"{name}-ours") / "model")["input"]
    tables = open_tables(place.model)
    mine = ours.apply(tables.read_input().float().numpy())
    theirs = np.load(place.cell(f"{name}-peer") / "rows.npy")[ours.new_ids]
    contents = [bytes.fromhex(note["hex"]) for note in ours.provenance]
    made = np.array([note["why"] == _OURS[name] for note in ours.provenance])
    fit = np.array([content.isascii() if name == "subword" else is_text(content) for content in contents])
    if name in ("wechsel", "focus"):
        broken = np.array([not is_text(tables.tokens.bytes_of(id)) for id in range(tables.rows)] + [False])
        touched = np.add.reduceat(broken[ours.indices].astype(int), ours.indptr[:-1]) > 0
        fit &= ~touched
    apart = np.linalg.norm(mine - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    compared = made & fit
    return {
        "new": len(made),
        "compared": int(compared.sum()),
        "same": int((compared & (apart <= 1e-5)).sum()),
        "same to 1e-3": int((compared & (apart <= 1e-3)).sum()),
        "not by the method": int((~made).sum()),
    }


def is_text(content: bytes) -> bool:
    """Whole characters that can be seen."""
    try:
        return bool(content.decode().strip()) and content.decode().strip().isprintable()
    except UnicodeDecodeError:
        return False


def table(place: Place, results: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| method | peer | rows: peer, ours (s) | ratio | all: peer, ours (s) | peak: peer, ours (GB) | ratio "
        "| rows compared | same to 1e-5 | to 1e-3 |",
        "|" + "---|" * 10,
    ]
    for name, found in results.items():
        peer, ours, rows = found["peer"], found["ours"], found["rows"]
        if failed := peer.get("failed") or ours.get("failed"):
            lines.append(f"| {name} | {_NAMES[name]} | {failed} | | | | | | | |")
            continue
        lines.append(
            f"| {name} | {_NAMES[name]} | {peer['seconds']:.1f}, {ours['seconds']:.1f} "
            f"| {peer['seconds'] / ours['seconds']:.1f} | {peer['all_seconds']:.1f}, {ours['all_seconds']:.1f} "
            f"| {peer['peak_bytes'] / 1e9:.2f}, {ours['peak_bytes'] / 1e9:.2f} "
            f"| {peer['peak_bytes'] / ours['peak_bytes']:.1f} | {rows['compared']:,} of {rows['new']:,} "
            f"| {rows['same']:,} | {rows['same to 1e-3']:,} |"
        )
    return "\n".join(lines)


def fill(page: Path, size: int, text: str) -> None:
    """Replace what stands between the marks of the page."""
    begin, end = BEGIN.format(size=size), END.format(size=size)
    before, rest = page.read_text(encoding="utf-8").split(begin, 1)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("size", type=int)
    for name in ("corpus", "source-text", "dictionary", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--wechsel-python", default="")
    parser.add_argument("--mergekit-python", default="")
    parser.add_argument("--only", default=",".join(_NAMES))
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    from langadapt.model.load import resolve

    given.work.mkdir(parents=True, exist_ok=True)
    place = Place(given.work.resolve(), Path(resolve(given.model)), given.size, given.dictionary.resolve())
    (place.file("empty.txt")).write_text("a\n")
    prepare(place, given.corpus, given.source_text)
    results: dict[str, dict[str, Any]] = {}
    for name, (peer, ours) in commands(place, given.wechsel_python, given.mergekit_python).items():
        if name not in given.only.split(","):
            continue
        found: dict[str, Any] = {
            "peer": measured(peer, place.cell(f"{name}-peer")),
            "ours": measured(ours, place.cell(f"{name}-ours")),
        }
        whole = "failed" not in found["peer"] and "failed" not in found["ours"]
        found["rows"] = same_rows(place, name) if whole else {}
        results[name] = found
        print(name, json.dumps(found), flush=True)
    text = table(place, results)
    print(text)
    if given.page:
        fill(given.page, given.size, text)


if __name__ == "__main__":
    main()
