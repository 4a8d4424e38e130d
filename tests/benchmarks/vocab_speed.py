"""extend-vocab beside training a new byte-level BPE with the tokenizers library: 8,000 tokens from the same text.

    python -m tests.benchmarks.vocab_speed MODEL MEGABYTES TARGET.jsonl [TARGET.jsonl...] --guard GUARD.jsonl...

Both read MEGABYTES of target and of guard text; the library trains on the two together, since it too has to see what is
to be protected. Where the files have less, words with a Zipf tail that never ends are made from the syllables of the
text, always the same, so that the vocabulary keeps growing as it does in real text. Each runs alone in a child process,
with one thread; processor seconds are compared, because wall time on a shared machine says nothing. Prints both, the
ratio and the peak memory; nothing passes or fails by speed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from langadapt.core.host import peak_memory_bytes
from langadapt.model.load import resolve

SIZE = 8000
# A word of this rank and above is new; Heaps' law for Hungarian text gives about one new word in fifteen.
_NEW_WORDS = 0.07
_PER_LINE = 60
_AT_ONCE = 60_000


def texts_of(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]


def invented(known: list[str], size: int, seed: int) -> Iterator[str]:
    """Lines of `size` bytes in all: known words by rank (Zipf, exponent 1), and new ones of two to four half words."""
    random = np.random.default_rng(seed)
    bounds = np.cumsum(1 / np.arange(1, len(known) + 1))
    long = [word for word in known if len(word) > 4]
    heads, tails = [word[: len(word) // 2] for word in long], [word[len(word) // 2 :] for word in long]
    taken = 0
    while taken < size:
        places = np.searchsorted(bounds, random.random(_AT_ONCE) * bounds[-1])
        words = [known[place] for place in places.tolist()]
        fresh = np.flatnonzero(random.random(_AT_ONCE) < _NEW_WORDS).tolist()
        halves = random.integers(len(long), size=(len(fresh), 4)).tolist()
        counts = random.integers(1, 4, size=len(fresh)).tolist()
        for place, parts, count in zip(fresh, halves, counts, strict=True):
            words[place] = "".join([heads[part] for part in parts[:count]]) + tails[parts[3]]
        for start in range(0, _AT_ONCE, _PER_LINE):
            text = " ".join(words[start : start + _PER_LINE])
            taken += len(text.encode())
            yield text
            if taken >= size:
                return


def collect(paths: list[Path], size: int, out: Path, seed: int) -> tuple[int, int]:
    """Write `size` bytes, one document a line of JSON; (bytes that are real, bytes)."""
    counts: dict[str, int] = {}
    taken = 0
    with out.open("w", encoding="utf-8") as file:
        for text in texts_of(paths):
            if taken >= size:
                break
            taken += len(text.encode())
            for word in text.split():
                counts[word] = counts.get(word, 0) + 1
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        real = taken
        known = sorted(counts, key=lambda word: (-counts[word], word))
        for text in invented(known, size - taken, seed) if taken < size else ():
            taken += len(text.encode())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return real, taken


def ours(model: Path, target: Path, guard: Path) -> int:
    from langadapt.core.progress import Progress
    from langadapt.vocab import tokenizer_file
    from langadapt.vocab.family import Wish, detect
    from langadapt.vocab.guard import Guard, with_variants
    from langadapt.vocab.words import count_words

    base = tokenizer_file.read(model)
    words = count_words(base, texts_of([target]))
    protected = Guard.of(base, with_variants(count_words(base, texts_of([guard])), base.spelling))
    growth = detect(base).grow(words, protected, Wish(size=SIZE, curve=True), Progress())
    tokenizer_file.write(base, growth.merges, model, Path(tempfile.mkdtemp()))
    return len(growth.tokens)


def library(model: Path, target: Path, guard: Path) -> int:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    fresh = Tokenizer(models.BPE())
    fresh.pre_tokenizer, fresh.normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE + len(alphabet), initial_alphabet=alphabet, show_progress=False)
    fresh.train_from_iterator(texts_of([target, guard]), trainer)
    fresh.save(str(Path(tempfile.mkdtemp()) / "tokenizer.json"))
    return fresh.get_vocab_size() - len(alphabet)


def alone(which: str, model: Path, target: Path, guard: Path) -> dict[str, float]:
    code = "import sys; from tests.benchmarks.vocab_speed import child; child(*sys.argv[1:])"
    env = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", code, which, str(model), str(target), str(guard)]
    done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(which: str, model: str, target: str, guard: str) -> None:
    began, processor = time.perf_counter(), time.process_time()
    tokens = {"ours": ours, "library": library}[which](Path(model), Path(target), Path(guard))
    found = {
        "wall": time.perf_counter() - began,
        "processor": time.process_time() - processor,
        "memory": peak_memory_bytes(),
        "tokens": tokens,
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="a folder or a .gguf file; only its tokenizer is read")
    parser.add_argument("megabytes", type=float)
    parser.add_argument("target", type=Path, nargs="+")
    parser.add_argument("--guard", type=Path, nargs="+", required=True)
    asked = parser.parse_args()
    model = resolve(asked.model)
    with tempfile.TemporaryDirectory() as folder:
        files = {"target": Path(folder) / "target.jsonl", "guard": Path(folder) / "guard.jsonl"}
        for seed, (name, path) in enumerate(files.items()):
            real, size = collect(getattr(asked, name), int(asked.megabytes * 1e6), path, seed)
            words = len({word for text in texts_of([path]) for word in text.split()})
            print(f"{name}: {size / 1e6:.1f} MB, {real / 1e6:.1f} MB of it real text, {words:,} different words")
        results = {}
        for which in ("library", "ours"):
            results[which] = found = alone(which, model, files["target"], files["guard"])
            print(
                f"{which:8} {found['tokens']:,.0f} tokens, {found['processor']:.1f} s of processor time "
                f"({found['wall']:.1f} s), {found['memory'] / 1e9:.2f} GB",
                flush=True,
            )
    print(f"ours / library: {results['ours']['processor'] / results['library']['processor']:.2f}")


if __name__ == "__main__":
    main()
