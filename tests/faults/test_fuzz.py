"""Readers fed with rubbish: whatever comes in, either it reads or an error of ours says what is wrong."""

import copy
import json
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langadapt.core.artifact import MANIFEST, open_artifact
from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.io import canonical_json, pretty_json, sha256_text
from langadapt.core.validate import validate
from langadapt.core.verb import load, perform
from langadapt.mixture.shards import INDEX, Shards, ShardWriter, token_type
from langadapt.mixture.stream import PLAN, Stream
from tests.fixtures.tiny import tiny_text

FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, item in inside for found in places(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    corpora = {}
    for name in ("hu", "en"):
        corpora[name] = str(folder / f"{name}.txt")
        Path(corpora[name]).write_text("\n\n".join(tiny_text(name, 12)), encoding="utf-8")
    mix = load("mix")
    values = {"model": str(tiny), "corpora": corpora, "block_tokens": 32, "document_separator": "<|endoftext|>"}
    return perform(mix, validate(mix.config, values), folder / "data").artifact.path


def read_all(folder: Path) -> None:
    stream = Stream.open(folder)
    for position in (0, 1, 50):
        stream.block(position)


def test_a_changed_plan_is_refused_or_read(data: Path) -> None:
    """Any value of plan.json replaced by any other: the mixture is read or refused, nothing else happens."""
    path = data / PLAN
    good = json.loads(path.read_text())
    refused = 0

    @FUZZ
    @given(where=st.sampled_from(places(good)), new=VALUES)
    def change(where: tuple[Any, ...], new: Any) -> None:
        nonlocal refused
        path.write_text(json.dumps(replaced(good, where, new)))
        try:
            read_all(data)
        except DataError:
            refused += 1

    try:
        change()
    finally:
        path.write_text(pretty_json(good))
    assert refused > 50
    read_all(data)


def test_a_random_index_is_refused_or_read(data: Path) -> None:
    path = data / "hu" / INDEX
    good = path.read_bytes()

    @FUZZ
    @given(starts=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 400), min_size=1, max_size=40))
    def change(starts: list[int]) -> None:
        np.array(starts, dtype="<u8").tofile(path)
        try:
            read_all(data)
        except DataError:
            return

    try:
        change()
    finally:
        path.write_bytes(good)
    read_all(data)


def test_a_changed_manifest_is_refused(data: Path) -> None:
    path = data / MANIFEST
    good = json.loads(path.read_text())

    @FUZZ
    @given(where=st.sampled_from(places(good)), new=VALUES, forged=st.booleans())
    def change(where: tuple[Any, ...], new: Any, forged: bool) -> None:
        bad = replaced(good, where, new)
        if bad == good:
            return
        if forged and isinstance(bad.get("checksum"), str):
            try:
                rest = {key: value for key, value in bad.items() if key != "checksum"}
                bad["checksum"] = sha256_text(canonical_json(rest))
            except (ValueError, UnicodeEncodeError):
                return
        path.write_text(json.dumps(bad))
        try:
            open_artifact(path.parent).verify()
        except DataError:
            return
        assert forged, f"a change of {where} was not noticed"

    try:
        change()
    finally:
        path.write_text(pretty_json(good))
    open_artifact(data).verify()


_WHOLE = {
    "txt": "Első bekezdés, elég hosszú szöveg.\n\nMásodik bekezdés, szintén elég hosszú.\n".encode(),
    "jsonl": b'{"text": "a line of text that is long enough"}\n{"text": "another line of text"}\n',
    "csv": b'id,text\n1,"some text, long enough to stay"\n2,more text of some length\n',
    "tsv": b"id\ttext\n1\tsome text, long enough to stay\n",
}


@pytest.mark.parametrize("kind", [*_WHOLE, "jsonl.gz", "txt.zst", "parquet"])
def test_damaged_text_files(tmp_path: Path, kind: str) -> None:
    """Bytes of a good file flipped, cut out, doubled or replaced: a corpus or an error of ours, never a traceback."""
    whole = _whole(tmp_path, kind)
    moments = random.Random(f"{kind}-20261124")
    prepare = load("prepare")
    ended = {"corpus": 0, "refused": 0}
    for number in range(40):
        bad = bytearray(whole)
        for _ in range(moments.choice([1, 1, 3, 20])):
            at = moments.randrange(len(bad))
            match moments.randrange(4):
                case 0:
                    bad[at] ^= 1 << moments.randrange(8)
                case 1:
                    del bad[at : at + moments.randrange(1, 8)]
                case 2:
                    bad[at:at] = bad[at : at + 16]
                case _:
                    bad[at : at + 4] = moments.randbytes(4)
            if not bad:
                bad = bytearray(b"\0")
        path = tmp_path / f"bad-{number}.{kind}"
        path.write_bytes(bytes(bad))
        config = validate(prepare.config, {"text": [str(path)], "lang": "hu", "min_lang_probability": 0.0})
        try:
            perform(prepare, config, tmp_path / f"out-{number}")
            ended["corpus"] += 1
        except LangadaptError as error:
            assert error.exit_code in (2, 3), error
            ended["refused"] += 1
    assert sum(ended.values()) == 40


def _whole(folder: Path, kind: str) -> bytes:
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"text": ["a line of text that is long enough", "another line of text"] * 5})
        pyarrow.parquet.write_table(table, folder / "whole.parquet")
        return (folder / "whole.parquet").read_bytes()
    plain, _, packing = kind.partition(".")
    content = _WHOLE[plain] * 20
    if packing == "gz":
        import gzip

        return gzip.compress(content, mtime=0)
    if packing == "zst":
        import zstandard

        return zstandard.compress(content)
    return content


def test_more_shards_than_a_process_may_open(tmp_path: Path) -> None:
    """Row 25: 2,000 shard files, 64 open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    kind = token_type(100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        (tmp_path / "ring").mkdir()
        with ShardWriter(tmp_path / "ring", 1, kind, shard_tokens=4) as writer:
            for number in range(1000):
                writer.add(np.full(7, 2 + number % 90, dtype=kind).tobytes())
        shards = Shards(tmp_path / "ring", tokens=8000, documents=1000, vocabulary=100, shard_tokens=4)
        read = shards.read(5, 8000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(list((tmp_path / "ring").glob("tokens-*"))) == 2000
    whole = np.concatenate([[1, *[2 + number % 90] * 7] for number in range(1000)])
    assert np.array_equal(read, np.roll(whole, -5))
