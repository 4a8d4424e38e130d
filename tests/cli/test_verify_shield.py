"""`verify shield`: what moved, what was allowed to, and one bit where nothing was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import langadapt
from langadapt.core.errors import DataError
from langadapt.core.types import Slice
from langadapt.select.selection import RECORD, Selection, read_selection, write_selection
from tests.cli.conftest import Run
from tests.fixtures.tiny import tiny_model

Q, DOWN, NORM = (
    f"model.layers.{part}.weight" for part in ("0.self_attn.q_proj", "1.mlp.down_proj", "1.input_layernorm")
)


@pytest.fixture(scope="module")
def chosen(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the columns of each matrix, drawn at random; made by select. Read only."""
    place = tmp_path_factory.mktemp("shield") / "random"
    langadapt.select(tiny, method="random", out=place)
    return place


def tuned(tiny: Path, place: Path, movable: Selection, *, also: tuple[str, tuple[int, ...]] | None = None) -> Path:
    """The model as training could leave it: each place that may move is another; `also` one value more."""
    shutil.copytree(tiny, place)
    tensors = load_file(place / "model.safetensors")
    for name in movable.names:
        if name in tensors:
            tensors[name] += 0.5
    for name, part in movable.slices.items():
        tensors[name].index_fill_(part.axis, torch.from_numpy(part.ids).long(), 0.25)
    if also is not None:
        tensors[also[0]][also[1]] *= -1
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place


def test_what_may_move_has_moved(call: Run, tiny: Path, chosen: Path, tmp_path: Path) -> None:
    selection = read_selection(chosen)
    tuned(tiny, tmp_path / "tuned", selection)
    done = call("verify", "shield", str(tiny), "tuned", "--selection", str(chosen), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["holds"] and found["total"]["broken"] == 0
    assert 0.4 < found["total"]["may_move"] / found["total"]["of"] < 0.9
    assert found["total"]["moved"] == found["total"]["may_move"] == selection.total
    kind = found["kinds"]["self_attn.q_proj.weight"]
    own = found["tensors"][Q], found["tensors"][Q.replace("0", "1")]
    assert kind["moved"] == sum(one["moved"] for one in own) and kind["largest"] == max(one["largest"] for one in own)
    before = load_file(tiny / "model.safetensors")[Q].double()
    after = load_file(tmp_path / "tuned" / "model.safetensors")[Q].double()
    assert own[0]["largest"] == pytest.approx(float((after - before).abs().max()), rel=1e-5)
    assert own[0]["relative"] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)
    shown = call("verify", "shield", str(tiny), "tuned", "--selection", str(chosen), "--table").out
    assert "drift from the base" in shown and "holds" in shown


@pytest.mark.parametrize("name", [Q, DOWN, NORM])
def test_one_bit_of_a_shielded_value(call: Run, tiny: Path, chosen: Path, tmp_path: Path, name: str) -> None:
    part = read_selection(chosen).slices[name]
    size = load_file(tiny / "model.safetensors")[name].shape[part.axis]
    shielded = int(np.setdiff1d(np.arange(size), part.ids)[0])
    at = (shielded,) if part.axis == 0 and name == NORM else (3, shielded)
    tuned(tiny, tmp_path / "tuned", read_selection(chosen), also=(name, at))
    done = call("verify", "shield", str(tiny), "tuned", "--selection", str(chosen))
    assert done.code == 1 and f"`{name}` {list(at)}" in done.err and "1 shielded values of 1 tensors" in done.err
    assert "1 broken" in done.out


def test_the_models_own_record(call: Run, tiny: Path, chosen: Path, tmp_path: Path) -> None:
    place = tuned(tiny, tmp_path / "tuned", read_selection(chosen))
    done = call("verify", "shield", str(tiny), "tuned")
    assert done.code == 3 and "does not say what was allowed to move" in done.err
    write_selection(place / "selection", read_selection(chosen))
    assert call("verify", "shield", str(tiny), "tuned").code == 0
    less = read_selection(chosen)
    part = less.slices[DOWN]
    narrow = Selection(less.names, {**less.slices, DOWN: Slice(part.axis, part.ids[:-1])}, less.shapes)
    write_selection(place / "selection", narrow)
    done = call("verify", "shield", str(tiny), "tuned")
    assert done.code == 1 and DOWN in done.err


def test_what_is_refused(call: Run, tiny: Path, chosen: Path, tmp_path: Path) -> None:
    place = tuned(tiny, tmp_path / "tuned", read_selection(chosen))
    tiny_model(tmp_path / "other", seed=5)
    done = call("verify", "shield", "other", "tuned", "--selection", str(chosen))
    assert done.code == 3 and "of another model" in done.err and "langadapt select" in done.err
    tiny_model(tmp_path / "wide", width=64)
    write_selection(place / "selection", read_selection(chosen))
    done = call("verify", "shield", "wide", "tuned")
    assert done.code == 3 and "of another model" in done.err
    broken = Path(shutil.copytree(chosen, tmp_path / "broken"))
    (broken / RECORD).write_bytes((broken / RECORD).read_bytes()[:-2])
    assert call("verify", "shield", str(tiny), "tuned", "--selection", "broken").code == 3
    done = call("verify", "shield", str(tiny), "tuned", "--selection", "missing")
    assert done.code == 3 and "`missing` does not exist" in done.err
    done = call("verify", "shield", str(tiny), "tuned", "--selection", f"broken/{RECORD}")
    assert done.code == 3 and "give its folder: `broken`" in done.err
    with pytest.raises(DataError, match="give its folder: `broken`"):
        langadapt.select(tiny, union=(f"broken/{RECORD}",), out="out")
    for words, arguments in (
        ("takes BASE TUNED, not 1", ("shield", "tuned")),
        ("takes no --text", ("shield", "tuned", "tuned", "--text", "a.txt")),
        ("takes no --selection", ("vocab", "tuned", "tuned", "--selection", "broken")),
    ):
        done = call("verify", *arguments)
        assert done.code == 2 and words in done.err
