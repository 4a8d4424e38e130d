"""What every method of `embed` must do; a new method is tested as soon as its file exists.

`laws` in `@method(...)` are promises that not every method can make:
linear   a base table times 4 gives rows times 4
convex   rows are averages: no weight is negative, the sum of each line is 1, no noise
local    the row of a token does not depend on which other new tokens there are
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.registry import load_method, method_names
from langadapt.core.types import NewToken
from langadapt.embed.hiding import hide, looked
from langadapt.embed.inputs import ALWAYS, InitInputs
from langadapt.embed.rowmap import RowMap, load_maps, save_maps
from langadapt.embed.types import Role
from langadapt.model.tables import open_tables
from langadapt.model.weights import open_weights
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.given import WIDTH, World, permuted_tokenizer, some_table, world
from tests.fixtures.tiny import tiny_model

METHODS = method_names("embed")
KINDS = {
    "tied": {"dtype": "bfloat16"},
    "untied": {"tied": False},
    "padded": {"padded_rows": 2},
    "bias": {"head_bias": True},
}
# What is saved depends on the map only: two methods go through all kinds of models, the others through one each.
SAVED = [(name, kind) for name in ("position-weighted", "random") for kind in KINDS]
SAVED += [
    (name, list(KINDS)[number % len(KINDS)]) for number, name in enumerate(METHODS) if (name, "tied") not in SAVED
]


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def inputs(place: World) -> InitInputs:
    return place.inputs(some_table(place.base.size))


def rows_of(name: str, inputs: InitInputs) -> RowMap:
    method = load_method("embed", name)
    made = method(inputs, method.options())
    assert isinstance(made, RowMap)
    return made


def with_law(law: str) -> list[str]:
    return [name for name in METHODS if law in load_method("embed", name).facts.laws]


def changed(inputs: InitInputs, **fields: object) -> InitInputs:
    return InitInputs(**{**vars(inputs), **fields})  # type: ignore[arg-type]


def test_there_are_methods_and_their_laws_are_known() -> None:
    assert {"mean", "subtoken-mean", "position-weighted", "random"} <= set(METHODS)
    laws = {law for name in METHODS for law in load_method("embed", name).facts.laws}
    assert laws == {"linear", "convex", "local"}


@pytest.mark.parametrize("role", ["input", "head", "tied"])
@pytest.mark.parametrize("name", METHODS)
def test_shape_dtype_and_finite(name: str, role: Role, inputs: InitInputs) -> None:
    rows = rows_of(name, changed(inputs, role=role)).apply(some_table(inputs.old_rows))
    assert rows.shape == (len(MERGES), WIDTH)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (np.abs(rows).sum(axis=1) > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bytes_in_any_order(name: str, inputs: InitInputs) -> None:
    values = some_table(inputs.old_rows)
    forward = rows_of(name, inputs)
    backward = rows_of(name, changed(inputs, new_tokens=tuple(reversed(inputs.new_tokens))))
    assert forward.new_ids.tolist() == sorted(forward.new_ids.tolist())
    assert forward.apply(values).tobytes() == backward.apply(values).tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_other_ids_for_the_new_tokens_move_the_rows_and_nothing_else(
    name: str, inputs: InitInputs, place: World, tiny: Path, tmp_path: Path
) -> None:
    values = some_table(inputs.old_rows)
    other = permuted_tokenizer(place.target.folder, tmp_path / "tokenizer", place.base.size)
    moved = world(tiny, tmp_path / "world", other).inputs(values)
    assert [token.piece for token in moved.new_tokens] == [token.piece for token in reversed(inputs.new_tokens)]
    before, after = rows_of(name, inputs).apply(values), rows_of(name, moved).apply(values)
    np.testing.assert_allclose(after, before[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", with_law("local"))
def test_a_row_does_not_depend_on_the_other_new_tokens(name: str, inputs: InitInputs) -> None:
    values = some_table(inputs.old_rows)
    together = rows_of(name, inputs).apply(values)
    for place, token in enumerate(inputs.new_tokens):
        alone = rows_of(name, changed(inputs, new_tokens=(token,))).apply(values)
        assert alone.tobytes() == together[place : place + 1].tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_hidden_tokens_are_made_without_their_rows(name: str, inputs: InitInputs, place: World) -> None:
    method = load_method("embed", name)
    hidden = hide(inputs, place.base, place.target, 0.2)
    try:
        rows = method(hidden.from_method(inputs, alone="local" in method.facts.laws), method.options())
    except DataError:
        # a map that was made for the whole base cannot be applied to one that lacks tokens
        assert "like" in method.facts.needs
        return
    assert set(hidden.new.tolist()) <= set(rows.new_ids.tolist())
    assert looked(rows, hidden) == 0


@pytest.mark.parametrize("name", METHODS)
def test_no_new_tokens_and_one(name: str, inputs: InitInputs) -> None:
    nothing = rows_of(name, changed(inputs, new_tokens=()))
    assert nothing.apply(some_table(inputs.old_rows)).shape == (0, WIDTH)
    assert nothing.duplicates() == [] and nothing.is_convex() and not nothing.column_mass().any()
    one = rows_of(name, changed(inputs, new_tokens=inputs.new_tokens[:1])).apply(some_table(inputs.old_rows))
    assert one.shape == (1, WIDTH) and np.isfinite(one).all()


@pytest.mark.parametrize("name", METHODS)
def test_tokenizers_without_a_token_in_common(name: str, inputs: InitInputs) -> None:
    """Rows all the same, or an error that says what is missing: not an accident of numpy."""
    try:
        rows = rows_of(name, changed(inputs, kept={})).apply(some_table(inputs.old_rows))
    except (ConfigError, DataError):
        return
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", METHODS)
def test_provenance_is_complete(name: str, inputs: InitInputs) -> None:
    rows = rows_of(name, inputs)
    assert [note["id"] for note in rows.provenance] == rows.new_ids.tolist()
    for note, token in zip(rows.provenance, inputs.new_tokens, strict=True):
        assert note["hex"] == token.content.hex() and note["piece"] == token.piece
        assert note["method"] == name and note["why"]
    assert sum(rows.reasons().values()) == len(inputs.new_tokens)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_stored_gives_the_same_rows(name: str, inputs: InitInputs, tmp_path: Path) -> None:
    rows, values = rows_of(name, inputs), some_table(inputs.old_rows)
    save_maps({"input": rows}, tmp_path)
    again = load_maps(tmp_path)["input"]
    assert again.apply(values).tobytes() == rows.apply(values).tobytes()
    assert again.apply_bias(values[:, 0]).tobytes() == rows.apply_bias(values[:, 0]).tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_token_that_cannot_be_spelled_gets_a_finite_row_and_says_so(name: str, inputs: InitInputs) -> None:
    class Mute:
        def spell(self, content: bytes) -> list[int]:
            return []

        def bytes_of(self, id: int) -> bytes:
            return inputs.base.bytes_of(id)

        def piece(self, id: int) -> str:
            return inputs.base.piece(id)

    token = NewToken(inputs.old_rows, "ßß", b"\xc3\x9f\xc3\x9f", 1, "test")
    rows = rows_of(name, changed(inputs, base=Mute(), new_tokens=(token,)))
    assert np.isfinite(rows.apply(some_table(inputs.old_rows))).all()
    if not set(load_method("embed", name).facts.needs) - {"base_tokenizer"}:
        assert rows.provenance[0]["why"] in ("the method", "the base tokenizer cannot spell it")


@pytest.mark.parametrize("name", with_law("linear"))
def test_rows_scale_with_the_table(name: str, inputs: InitInputs, place: World) -> None:
    values = some_table(inputs.old_rows)
    before = rows_of(name, inputs).apply(values)
    after = rows_of(name, changed(inputs, given=place.given(values * 4))).apply(values * 4)
    np.testing.assert_allclose(after, before * 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", with_law("convex"))
def test_rows_are_averages(name: str, inputs: InitInputs) -> None:
    rows, values = rows_of(name, inputs), some_table(inputs.old_rows)
    assert rows.is_convex()
    made, text = rows.apply(values), values[inputs.population]
    assert (made >= text.min(axis=0) - 1e-6).all() and (made <= text.max(axis=0) + 1e-6).all()


@pytest.mark.parametrize("name", METHODS)
def test_unknown_option_is_a_config_error(name: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sclae"):
        langadapt.init_embeddings(
            out=tmp_path / "o", model=tiny, tokenizer=tiny, method=name, method_options={"sclae": 2}
        )


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_is_asked_for(name: str, tiny: Path, tmp_path: Path) -> None:
    wanted = [need for need in load_method("embed", name).facts.needs if not need.endswith("?")]
    if not set(wanted) - set(ALWAYS):
        return
    with pytest.raises(ConfigError, match=f"`{name}` needs") as caught:
        langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tiny, method=name)
    assert "--" in (caught.value.hint or "")


@pytest.mark.parametrize("name", METHODS)
def test_the_same_tokenizer_gives_the_same_table_bit_for_bit(
    name: str, tiny: Path, place: World, tmp_path: Path
) -> None:
    made = langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tiny, method=name, **place.flags(name))
    assert (made.path / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("name", "kind"), SAVED)
def test_saved_model_keeps_old_rows_bit_for_bit(name: str, kind: str, place: World, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", **KINDS[kind])  # type: ignore[arg-type]
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    made = langadapt.init_embeddings(
        out=tmp_path / "out", model=base, tokenizer=tokenizer, method=name, **place.flags(name)
    )
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
