"""Damaged data artifacts (fault row 17) and the independence of `mix` from order, threads and place (rows 44, 45)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from langadapt.core import verb
from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.core.io import sha256_file
from langadapt.core.validate import validate
from langadapt.mixture.stream import Stream
from tests.fixtures.tiny import tiny_text


def write_corpus(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def mix(out: Path, model: Path, corpora: dict[str, Path], **more: object) -> Artifact:
    loaded = verb.load("mix")
    values = {"model": str(model), "corpora": {name: str(path) for name, path in corpora.items()}, **more}
    return verb.perform(loaded, validate(loaded.config, values), out).artifact


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texts = {name: write_corpus(folder / f"{name}.jsonl", tiny_text(name, 40)) for name in ("hu", "en")}
    return mix(
        folder / "data", tiny, texts, replay={"en": 0.25}, block_tokens=32, document_separator="<|endoftext|>"
    ).path


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "copy"))


def rewrite_index(folder: Path, change: Callable[[np.ndarray], None]) -> None:
    path = folder / "hu" / "documents.idx"
    starts = np.fromfile(path, dtype="<u8")
    change(starts)
    starts.tofile(path)


def edit_plan(folder: Path, change: Callable[[dict], None]) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))


def set_last(starts: np.ndarray, value: int) -> None:
    starts[-1] = value


def swap(starts: np.ndarray) -> None:
    starts[3], starts[4] = starts[4], starts[3]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (lambda at: (at / "hu" / "tokens-00000.bin").unlink(), "is missing"),
    "a missing source": (lambda at: shutil.rmtree(at / "en"), "is missing"),
    "a missing index": (lambda at: (at / "hu" / "documents.idx").unlink(), "is missing"),
    "an extra shard": (lambda at: (at / "hu" / "tokens-00001.bin").write_bytes(b"\0\0"), "does not belong"),
    "a cut shard": (lambda at: os.truncate(at / "hu" / "tokens-00000.bin", 64), "has 64 bytes, the plan needs"),
    "an index past the end": (lambda at: rewrite_index(at, lambda s: set_last(s, 10**9)), "points outside"),
    "a negative index": (lambda at: rewrite_index(at, lambda s: set_last(s, 2**64 - 1)), "points outside"),
    "an index out of order": (lambda at: rewrite_index(at, swap), "points outside"),
    "a late first document": (lambda at: rewrite_index(at, lambda s: s.__setitem__(0, 1)), "points outside"),
    "a plan of more tokens": (
        lambda at: edit_plan(at, lambda p: p["sources"][1].update(tokens=p["sources"][1]["tokens"] + 1)),
        "plan",
    ),
    "a plan of one document less": (
        lambda at: edit_plan(at, lambda p: p["sources"][1].update(documents=p["sources"][1]["documents"] - 1)),
        "the plan needs",
    ),
    "no plan": (lambda at: (at / "plan.json").unlink(), "cannot read"),
    "a plan that is not JSON": (lambda at: (at / "plan.json").write_text("{"), "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_damage_is_found_when_the_data_is_opened(copy: Path, name: str) -> None:
    Stream.open(copy)
    damage, words = FAULTS[name]
    damage(copy)
    with pytest.raises(DataError, match=words):
        Stream.open(copy)


def test_an_index_that_points_inside_a_document_is_found_when_it_is_read(copy: Path) -> None:
    rewrite_index(copy, lambda starts: starts.__setitem__(slice(1, None), starts[1:] + 1))
    stream = Stream.open(copy)
    with pytest.raises(DataError, match="no separator"):
        for position in range(200):
            stream.block(position)


def test_a_token_without_a_row_is_found_when_it_is_read(copy: Path) -> None:
    path = copy / "hu" / "tokens-00000.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[1::2] = 60_000
    tokens.tofile(path)
    stream = Stream.open(copy)
    with pytest.raises(DataError, match="holds token 60000"):
        for position in range(200):
            stream.block(position)


def test_a_shard_that_shrinks_while_training_is_an_error_not_a_crash(copy: Path) -> None:
    stream = Stream.open(copy)
    for name in ("hu", "en"):
        os.truncate(copy / name / "tokens-00000.bin", 0)
    with pytest.raises(DataError, match="ends too early"):
        stream.block(0)


def hashed(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "timings.jsonl")
    }


def test_shuffled_corpora_give_the_same_data(tmp_path: Path, tiny: Path) -> None:
    """Row 45. The manifest differs in the digest of the input file alone."""
    found = []
    for order in (1, -1):
        place = tmp_path / str(order)
        place.mkdir()
        texts = {name: write_corpus(place / f"{name}.jsonl", tiny_text(name, 60)[::order]) for name in ("hu", "en")}
        settings = {"replay": {"en": 0.25}, "block_tokens": 32, "max_bytes": 9000}
        artifact = mix(place / "data", tiny, texts, **settings)
        assert artifact.facts["sources"]["hu"]["bytes"] <= 9000
        files = hashed(artifact.path)
        del files["artifact.json"]
        found.append((files, artifact.facts))
    assert found[0] == found[1]


_PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[4]))
from langadapt import mix
mix(out=sys.argv[1], model=sys.argv[2], corpora={"hu": sys.argv[3]}, block_tokens=32)
"""


def test_place_threads_locale_and_hash_seed_do_not_matter(tmp_path: Path, tiny: Path) -> None:
    """Row 44: whole artifacts, made by two processes in different surroundings."""
    found = []
    for number, (threads, zone, locale) in enumerate([(1, "UTC", "C"), (2, "Asia/Tokyo", "C.UTF-8")]):
        place = tmp_path / f"place {number}"
        place.mkdir()
        text = write_corpus(place / "text.jsonl", tiny_text("hu", 200))
        environment = os.environ | {
            "PYTHONHASHSEED": str(number + 1), "TZ": zone, "LC_ALL": locale, "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true" if number else "false", "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        command = [sys.executable, "-c", _PROGRAM, str(place / "data"), str(tiny), str(text), str(threads)]
        subprocess.run(command, env=environment, cwd=place, check=True, timeout=120)
        found.append(hashed(place / "data"))
    assert found[0] == found[1]
    assert "artifact.json" in found[0]
