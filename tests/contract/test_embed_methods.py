"""What every method of `embed` must do; a new method is tested as soon as its file exists."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError
from langadapt.core.registry import load_method, method_names
from langadapt.core.types import NewToken
from langadapt.embed.rowmap import InitInputs, Role, RowMap
from langadapt.model.matching import match
from langadapt.model.tables import open_tables
from langadapt.model.token_table import TokenTable
from langadapt.model.weights import open_weights
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.tiny import tiny_model

METHODS = method_names("embed")


@pytest.fixture(scope="module")
def base(tiny: Path) -> TokenTable:
    return TokenTable.from_folder(tiny)


@pytest.fixture(scope="module")
def inputs(base: TokenTable, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> InitInputs:
    new = TokenTable.from_folder(extended_tokenizer(tiny, tmp_path_factory.mktemp("tok") / "t"))
    tokens = match(base, new, base_rows=base.size).new_tokens
    return InitInputs(base, tokens, base.size, base.text_ids(), "input", seed=3)


def rows_of(name: str, inputs: InitInputs) -> RowMap:
    method = load_method("embed", name)
    made = method(inputs, method.options())
    assert isinstance(made, RowMap)
    return made


def changed(inputs: InitInputs, **fields: object) -> InitInputs:
    return InitInputs(**{**vars(inputs), **fields})  # type: ignore[arg-type]


def table(rows: int, width: int = 8) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=5)).standard_normal((rows, width), dtype=np.float32) + 0.1


def test_there_are_methods() -> None:
    assert {"mean", "subtoken-mean", "position-weighted", "random"} <= set(METHODS)


@pytest.mark.parametrize("role", ["input", "head", "tied"])
@pytest.mark.parametrize("name", METHODS)
def test_shape_dtype_and_finite(name: str, role: Role, inputs: InitInputs) -> None:
    rows = rows_of(name, changed(inputs, role=role)).apply(table(inputs.old_rows))
    assert rows.shape == (len(MERGES), 8)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (np.abs(rows).sum(axis=1) > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bytes_in_any_order(name: str, inputs: InitInputs) -> None:
    values = table(inputs.old_rows)
    forward = rows_of(name, inputs)
    backward = rows_of(name, changed(inputs, new_tokens=tuple(reversed(inputs.new_tokens))))
    assert forward.new_ids.tolist() == sorted(forward.new_ids.tolist())
    assert forward.apply(values).tobytes() == backward.apply(values).tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_row_does_not_depend_on_the_other_new_tokens(name: str, inputs: InitInputs) -> None:
    values = table(inputs.old_rows)
    together = rows_of(name, inputs).apply(values)
    for place, token in enumerate(inputs.new_tokens):
        alone = rows_of(name, changed(inputs, new_tokens=(token,))).apply(values)
        assert alone.tobytes() == together[place : place + 1].tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_no_new_tokens(name: str, inputs: InitInputs) -> None:
    nothing = rows_of(name, changed(inputs, new_tokens=()))
    assert nothing.apply(table(inputs.old_rows)).shape == (0, 8)
    assert nothing.duplicates() == [] and nothing.is_convex() and not nothing.column_mass().any()


@pytest.mark.parametrize("name", METHODS)
def test_provenance_is_complete(name: str, inputs: InitInputs) -> None:
    rows = rows_of(name, inputs)
    assert [note["id"] for note in rows.provenance] == rows.new_ids.tolist()
    for note, token in zip(rows.provenance, inputs.new_tokens, strict=True):
        assert note["hex"] == token.content.hex() and note["piece"] == token.piece
        assert note["method"] == name and note["why"]


@pytest.mark.parametrize("name", METHODS)
def test_a_token_that_cannot_be_spelled_gets_a_finite_row_and_says_so(name: str, inputs: InitInputs) -> None:
    class Mute:
        def spell(self, content: bytes) -> list[int]:
            return []

        def bytes_of(self, id: int) -> bytes:
            raise AssertionError("no pieces, so nothing to ask")

        def piece(self, id: int) -> str:
            raise AssertionError("no pieces, so nothing to ask")

    token = NewToken(inputs.old_rows, "ßß", b"\xc3\x9f\xc3\x9f", 1, "test")
    rows = rows_of(name, changed(inputs, base=Mute(), new_tokens=(token,)))
    assert np.isfinite(rows.apply(table(inputs.old_rows))).all()
    assert rows.provenance[0]["why"] in ("the method", "the base tokenizer cannot spell it")


@pytest.mark.parametrize("name", METHODS)
def test_rows_scale_with_the_table(name: str, inputs: InitInputs) -> None:
    values = table(inputs.old_rows)
    rows = rows_of(name, inputs)
    np.testing.assert_allclose(rows.apply(values * 4), rows.apply(values) * 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_option_is_a_config_error(name: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sclae"):
        langadapt.init_embeddings(
            out=tmp_path / "o", model=tiny, tokenizer=tiny, method=name, method_options={"sclae": 2}
        )


@pytest.mark.parametrize("kind", ["tied", "untied", "padded", "bias"])
@pytest.mark.parametrize("name", METHODS)
def test_saved_model_keeps_old_rows_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    how = {
        "tied": {"dtype": "bfloat16"},
        "untied": {"tied": False},
        "padded": {"padded_rows": 2},
        "bias": {"head_bias": True},
    }[kind]
    base = tiny_model(tmp_path / "base", **how)  # type: ignore[arg-type]
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    made = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=tokenizer, method=name)
    before, after = open_tables(base), open_tables(made.path)
    tokens = before.tokens.size
    assert after.rows == max(before.rows, tokens + len(MERGES)) == made.facts["rows"]
    assert after.tied == before.tied
    for old_name in (before.stored.input, before.stored.head, before.stored.bias):
        if old_name is not None:
            old, new = open_weights(base).read(old_name), open_weights(made.path).read(old_name)
            assert new.dtype == old.dtype
            assert torch.equal(old[:tokens], new[:tokens])
            assert bool(torch.isfinite(new).all())
    checks = json.loads((made.path / "checks.json").read_text(encoding="utf-8"))
    assert all(check["ok"] for check in checks if check["must_hold"])
