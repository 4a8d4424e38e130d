"""The same bytes from extend-vocab in every process: hash seed, threads, order of files; all four families."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langadapt.core.io import sha256_file
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.pieces import unigram_tokenizer, wordpiece_tokenizer
from tests.fixtures.tiny import _TEXT, tiny_corpus, tiny_tokenizer

ROOT = Path(__file__).parents[2]
FILES = ("tokenizer.json", "vocab_map.jsonl", "checks.json")
# (family, mode); the file curve.json is made for BPE in mode append only
MADE = (("byte-bpe", "append"), ("byte-bpe", "same-size"), ("gemma", "append"), ("unigram", "append"),
        ("wordpiece", "append"))  # fmt: skip
_PROGRAM = """
import sys
import langadapt
place, models, made, *texts = sys.argv[1:]
corpus = langadapt.prepare(out=f"{place}/hu", text=texts[:2], lang="hu", min_lang_probability=0.0)
rules = {"lang": "en", "min_lang_probability": 0.0, "min_characters": 1}
guards = [str(langadapt.prepare(out=f"{place}/guard-{name}", text=[name], **rules).path) for name in texts[2:]]
for entry in made.split():
    family, mode = entry.split("/")
    langadapt.extend_vocab(
        out=f"{place}/{family}-{mode}", model=f"{models}/{family}", corpus=str(corpus.path), guard=guards, size=12,
        min_count=2, mode=mode,
    )
"""


# two processes that run the verb for every family: a busy machine takes its time
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two processes that share nothing but what they are given: other seeds, threads, orders, folders."""
    folder = tmp_path_factory.mktemp("identity")
    models = folder / "models"
    tiny_tokenizer(models / "byte-bpe")
    fallback_tokenizer(models / "gemma")
    for name in ("byte-bpe", "gemma"):
        (models / name / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    unigram_tokenizer(models / "unigram", _TEXT.splitlines())
    wordpiece_tokenizer(models / "wordpiece", _TEXT.splitlines())
    texts = [str(tiny_corpus(folder / f"text-{number}", "hu", 80, seed=number)) for number in range(2)]
    lines = _TEXT.splitlines()  # the rest is not protected: same-size needs tokens to give up
    (folder / "one.txt").write_text(lines[0], encoding="utf-8")
    (folder / "two.txt").write_text(lines[1], encoding="utf-8")
    guards = ["one.txt", "two.txt"]
    found = []
    for number, (first, second) in enumerate([(texts, guards), (texts[::-1], guards[::-1])]):
        place = folder / f"place-{number}"
        place.mkdir()
        for name in guards:
            (place / name).write_bytes((folder / name).read_bytes())
        around = os.environ | {
            "PYTHONHASHSEED": str(7 * number + 1), "RAYON_NUM_THREADS": str(1 + 3 * number), "PYTHONPATH": str(ROOT),
            "TOKENIZERS_PARALLELISM": "true" if number else "false", "OMP_NUM_THREADS": str(1 + number),
        }  # fmt: skip
        made = " ".join("/".join(entry) for entry in MADE)
        command = [sys.executable, "-c", _PROGRAM, ".", str(models), made, *first, *second]
        done = subprocess.run(command, env=around, cwd=place, timeout=600, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(place)
    return found


@pytest.mark.parametrize(("family", "mode"), MADE)
def test_a_tokenizer_is_the_same_bytes_in_every_process(results: list[Path], family: str, mode: str) -> None:
    one, two = (place / f"{family}-{mode}" for place in results)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    names = [*FILES, *(["curve.json"] if (one / "curve.json").is_file() else [])]
    for name in names:
        assert sha256_file(one / name) == sha256_file(two / name), name
    assert (one / "curve.json").is_file() == (mode == "append" and family in ("byte-bpe", "gemma"))
