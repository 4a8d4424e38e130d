"""What the step hands to methods, from files as people have them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import langadapt
from langadapt.core import verb
from langadapt.core.artifact import Identity, Output
from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.core.inputs import Input
from langadapt.core.progress import Progress
from langadapt.core.registry import load_method
from langadapt.model.tables import open_tables
from langadapt.model.token_table import TokenTable
from langadapt.steps._init_given import given_by, learning_seconds, stored_table
from tests.fixtures.given import World, world


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def opened(place: World, base: Path, target: Path, **files: Path) -> Any:
    inputs = {name: Input(str(path), path, None, f"digest of {name}", {}) for name, path in files.items()}
    out = Output(Path("x"), Path("x"), Identity("model", "v", 1, {}, {}), Progress(), inputs)
    return given_by(out, open_tables(base), TokenTable.from_folder(target))


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        *(({"method": name}, ConfigError, f"the method `{name}` needs `helper`") for name in ("clp", "omp", "sava")),
        ({"method": "mean", "head_method": "clp"}, ConfigError, "the method `clp` needs `helper`"),
        ({"method": "clp", "helper": "train"}, ConfigError, "`--helper train` needs text"),
        ({"method": "clp", "helper": "./none"}, DataError, "`./none` does not exist"),
        ({"method": "clp", "helper": "none.gguf"}, DataError, "`none.gguf` does not exist"),
        ({"method": "wechsel", "vectors": "none.vec"}, ConfigError, "`wechsel` needs"),
        ({"vectors": "none.vec"}, DataError, "`none.vec` does not exist"),
        ({"dictionary": "none.tsv"}, DataError, "`none.tsv` does not exist"),
    ],
)
def test_what_is_missing_is_refused_before_a_model_is_looked_at(
    settings: dict[str, str], error: type[LangadaptError], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("langadapt.model.load.resolve", lambda given: pytest.fail("it was opened"))
    with pytest.raises(error) as caught:
        langadapt.init_embeddings("org/model", tmp_path, out=tmp_path / "out", **settings)
    assert told in str(caught.value)
    step = verb.load("init-embeddings")
    with pytest.raises(error):
        verb.resolved(step, step.config(model="org/model", tokenizer=str(tmp_path), **settings))


def test_everything_is_opened_from_files(place: World, tiny: Path) -> None:
    given = opened(place, tiny, place.target.folder, **place.files)
    assert next(given.corpus()) == place.texts[0]
    assert given.vectors().width == given.base_vectors().width == 8 and given.vectors() is given.vectors()
    assert next(given.dictionary()) == tuple(place.files["dictionary"].read_text().splitlines()[0].split("\t"))
    assert len(next(given.counts())) == 3 and len(next(given.parallel())) == 2
    assert given.helper().width == 16 and given.digests["corpus"] == "digest of corpus"
    tables = open_tables(tiny)
    np.testing.assert_array_equal(stored_table(tables, "input").float().numpy(), tables.read_input().numpy())


def test_what_is_not_given_is_none_and_the_corpus_stands_in_for_vectors(place: World, tiny: Path) -> None:
    given = opened(place, tiny, place.target.folder, corpus=place.files["corpus"])
    assert given.helper is given.dictionary is given.base_vectors is given.counts is None
    assert len(given.vectors().words) > 5


def test_a_line_with_another_number_of_columns_is_named(place: World, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("the\ta\n\nhouse\tház\thome\n", encoding="utf-8")
    given = opened(place, tiny, place.target.folder, dictionary=tmp_path / "d.tsv")
    with pytest.raises(DataError, match="3 columns where two are needed") as caught:
        list(given.dictionary())
    assert str(caught.value.where).endswith("d.tsv:3") and "base word<TAB>new word" in str(caught.value.hint)


def test_learning_is_in_the_price_and_files_of_vectors_are_not(tmp_path: Path) -> None:
    for name, size in (("a.txt", 3_000_000), ("b.txt", 1_000_000), ("c.vec", 5_000_000)):
        (tmp_path / name).write_bytes(b"x" * size)

    def given(**names: str) -> Any:
        return {key: Input(name, tmp_path / name, None, name, {}) for key, name in names.items()}

    focus, wechsel, mean = ((load_method("embed", name), None) for name in ("focus", "wechsel", "mean"))
    assert learning_seconds([focus, focus], given(corpus="a.txt")) == pytest.approx(24)
    assert learning_seconds([mean], given(corpus="a.txt")) == 0
    align, counts = (load_method("embed", "align"), None), (load_method("embed", "counts"), None)
    assert learning_seconds([align], given(corpus="a.txt")) == pytest.approx(4.8)
    assert learning_seconds([align, focus], given(corpus="a.txt")) == pytest.approx(24)
    assert learning_seconds([counts], given(parallel="a.txt", dictionary="b.txt")) == pytest.approx(2.2 * 4)
    assert learning_seconds([wechsel], given(corpus="a.txt", dictionary="b.txt")) == pytest.approx(24)
    assert learning_seconds([wechsel], given(vectors="a.txt", base_vectors="b.txt")) == pytest.approx(32)
    assert learning_seconds([wechsel], given(vectors="c.vec", base_vectors="b.txt")) == pytest.approx(8)


def test_tokenizers_cut_no_text_off(place: World, tiny: Path, tmp_path: Path) -> None:
    short = shutil.copytree(place.target.folder, tmp_path / "t")
    content = json.loads((short / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (short / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    text = place.texts[0]
    assert len(Tokenizer.from_file(str(short / "tokenizer.json")).encode(text).ids) == 4
    assert len(opened(place, tiny, short).target_tokenizer().encode(text, add_special_tokens=False).ids) > 50
