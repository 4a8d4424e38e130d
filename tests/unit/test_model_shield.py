"""Comparing a model's files with those of its base: every changed bit is found, and where it may be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.types import Slice
from langadapt.model import shield

HEAD = json.dumps({"model_type": "llama", "tie_word_embeddings": True})
TABLE, MATRIX, NORM = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def folder(place: Path, tensors: dict[str, torch.Tensor]) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text(HEAD)
    save_file(tensors, place / "model.safetensors")
    return place


@pytest.fixture
def base(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(0)
    return folder(tmp_path / "base", {
        TABLE: torch.randn(9, 4, generator=random).bfloat16(),
        MATRIX: torch.randn(6, 4, generator=random),
        NORM: torch.tensor([0.0, -1.0, float("nan"), 2.0]),
    })  # fmt: skip


def slice_of(axis: int, *ids: int) -> Slice:
    return Slice(axis, np.array(ids, dtype=np.int32))


def changed(base: Path, place: Path, name: str, values: torch.Tensor) -> Path:
    return folder(place, load_file(base / "model.safetensors") | {name: values})


def test_a_model_is_the_same_as_itself(base: Path) -> None:
    found = shield.compare(base, base, [TABLE], {MATRIX: slice_of(1, 0, 3)})
    assert shield.total(found) == {"moved": 0, "may_move": 36 + 12, "of": 36 + 24 + 4, "broken": 0}
    assert found[NORM] == shield.Drift(0, 0, 4, 0, 0.0, None)  # the norm of a tensor with a NaN is not a number


def test_the_largest_change_and_its_share_are_those_of_the_values(base: Path, tmp_path: Path) -> None:
    matrix = load_file(base / "model.safetensors")[MATRIX]
    new = matrix.clone()
    new[:, 1] += torch.tensor([0.5, 0.0, 0.0, -2.0, 0.0, 0.0])
    drift = shield.compare(base, changed(base, tmp_path / "new", MATRIX, new), [], {MATRIX: slice_of(1, 1)})[MATRIX]
    assert (drift.moved, drift.may_move, drift.of, drift.broken, drift.first) == (2, 6, 24, 0, None)
    assert drift.largest == pytest.approx(2.0, rel=1e-5)
    assert drift.relative == pytest.approx(4.25**0.5 / float(matrix.norm()), rel=1e-5)


@pytest.mark.parametrize(("axis", "at"), [(0, 4), (1, 2)])
def test_one_bit_outside_what_may_move_is_found(
    base: Path, tmp_path: Path, axis: int, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shield, "_PIECE_NUMBERS", 8)  # two rows at a time
    new = load_file(base / "model.safetensors")[MATRIX].clone()
    new.view(torch.int32)[4, 2] ^= 1
    tuned = changed(base, tmp_path / "new", MATRIX, new)
    others = [each for each in range(new.shape[axis]) if each != at]
    drift = shield.compare(base, tuned, [], {MATRIX: slice_of(axis, *others)})[MATRIX]
    assert (drift.moved, drift.broken, drift.first) == (0, 1, (4, 2))
    inside = shield.compare(base, tuned, [], {MATRIX: slice_of(axis, at)})
    assert (inside[MATRIX].moved, inside[MATRIX].broken) == (1, 0)
    shield.check(inside, tuned)
    with pytest.raises(LangadaptError, match=r"1 shielded values of 1 tensors.*up_proj.weight` \[4, 2\]"):
        shield.check(shield.compare(base, tuned, [TABLE], {}), tuned)


def test_a_sign_of_zero_and_another_nan_are_changes(base: Path, tmp_path: Path) -> None:
    new = torch.tensor([-0.0, -1.0, float("nan"), 2.0])
    new.view(torch.int32)[2] += 1
    assert new[0] == 0.0 and new[2].isnan()
    drift = shield.compare(base, changed(base, tmp_path / "new", NORM, new), [], {})[NORM]
    assert drift.broken == 2 and drift.first == (0,)
    assert json.loads(shield.content({NORM: drift}))["total"]["broken"] == 2


def test_a_head_stored_beside_the_table_that_it_is_may_move_with_it(base: Path, tmp_path: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    twice = folder(tmp_path / "twice", tensors | {"lm_head.weight": tensors[TABLE].clone()})
    rows = tensors[TABLE].clone()
    rows[8] = 1.0
    tuned = folder(tmp_path / "new", tensors | {TABLE: rows, "lm_head.weight": rows.clone()})
    found = shield.compare(twice, tuned, [], {TABLE: slice_of(0, 8)})
    assert shield.total(found)["broken"] == 0 and found["lm_head.weight"].moved == 4
    assert shield.total(shield.compare(twice, tuned, [], {TABLE: slice_of(0, 7)}))["broken"] == 8


def test_models_that_do_not_have_the_same_tensors_are_not_compared(base: Path, tmp_path: Path) -> None:
    longer = changed(base, tmp_path / "longer", TABLE, torch.zeros(10, 4).bfloat16())
    with pytest.raises(DataError, match=r"BF16 \[9, 4\].*BF16 \[10, 4\]"):
        shield.compare(base, longer, [], {})
    wider = changed(base, tmp_path / "wider", TABLE, torch.zeros(9, 4))
    with pytest.raises(DataError, match=r"BF16 \[9, 4\].*F32 \[9, 4\]"):
        shield.compare(base, wider, [], {})
    more = changed(base, tmp_path / "more", "other.weight", torch.zeros(1))
    with pytest.raises(DataError, match=r"has no tensor `other\.weight`"):
        shield.compare(base, more, [], {})
    with pytest.raises(DataError, match=r"place 6 along axis 0.*\[6, 4\]"):
        shield.compare(base, base, [], {MATRIX: slice_of(0, 6)})
