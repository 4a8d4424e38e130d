"""How far weights have gone, against a slow oracle on the written files, and what a gauge may do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import langadapt
from langadapt.core.errors import TrainingFailed
from langadapt.core.types import Movable, Slice
from langadapt.model.load import load_model
from langadapt.report.metrics import as_csv, rows_of
from langadapt.train import drift as drifts
from langadapt.train.drift import Drift
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.trainable import make_trainable
from tests.fixtures.tiny import tiny_model

HEAD = "lm_head.weight"
INPUT = "model.embed_tokens.weight"


def share(now: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> float:
    """|now - before| / |before| over some tensors, in double."""
    far = sum(float((now[name].double() - before[name].double()).square().sum()) for name in before)
    return float((far / sum(float(before[name].double().square().sum()) for name in before)) ** 0.5)


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]


def run(out: Path, model: Path, data: Path, **more: Any) -> Any:
    return langadapt.cpt(
        out=out, model=str(model), data=str(data), steps=6, batch_tokens=128, learning_rate=3e-3, probe_every=2,
        threads=1, compute="fp32", **more,
    )  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}, {"strategy": "lora", "strategy_options": {"rank": 4}}])
def test_the_record_says_what_the_files_say(tmp_path: Path, tiny: Path, tiny_data: Path, more: dict[str, Any]) -> None:
    made = run(tmp_path / "out", tiny, tiny_data, **more)
    probes = [line for line in lines(made.path) if "probes" in line]
    assert ["drift" in line for line in probes] == [False, True, True, True]
    before, after = load_file(tiny / "model.safetensors"), load_file(made.path / "model.safetensors")
    matrices = {name for name in before if name != INPUT and (not more.get("strategy") or before[name].ndim == 2)}
    body = {name: before[name] for name in matrices}
    found = probes[-1]["drift"]
    assert found["tables"] == pytest.approx(share(after, {INPUT: before[INPUT]}), rel=1e-4)
    assert found["body"] == pytest.approx(share(after, body), rel=1e-4)
    assert found["all"] == pytest.approx(share(after, body | {INPUT: before[INPUT]}), rel=1e-4)
    assert made.facts["drift"] == found and "new_rows" not in found
    columns = as_csv(rows_of(made.path / "metrics.jsonl")).split("\n")[0].split(",")
    assert columns[-5:] == ["probe/en", "probe/hu", "drift/all", "drift/body", "drift/tables"]


def test_new_rows_are_told_apart_in_whole_tables_and_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifts, "_AT_ONCE", 50)
    folder = tiny_model(tmp_path / "untied", tied=False)
    model = load_model(folder)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    rows = before[INPUT].shape[0]
    norm = "model.norm.weight"
    ids = np.array([2, 5, rows - 2, rows - 1], dtype=np.int32)
    optimiser = Optimiser(model, {INPUT, HEAD, norm}, AdamSettings(), old_rows=rows - 3)
    gauge = Drift(model, optimiser, folder, adapter=None, new_rows=None, old_rows=rows - 3)
    assert gauge.measure(0) == {} and set(gauge.measure(1).values()) == {0.0}
    with torch.no_grad():
        for value in (model.get_parameter(INPUT), model.get_parameter(HEAD)):
            value[-3:] *= 3.0
            value[:-3] *= 1.5
        model.get_parameter(norm).mul_(0.9)
    found = gauge.measure(1)
    assert {group: pytest.approx(value, rel=1e-4) for group, value in found.items() if group != "all"} == {
        "tables": 0.5, "new_rows": 2.0, "body": 0.1
    }  # fmt: skip
    # rows of one table as a parameter of their own
    subject = make_trainable(
        load_model(folder), Movable(frozenset(), {INPUT: Slice(0, ids)}), seed=0, folder=folder, compute="fp32"
    )
    optimiser = Optimiser(subject.model, set(subject.names), AdamSettings(), old_rows=None, parts=subject.parts)
    with torch.no_grad():
        subject.parts.sliced[0].moving.mul_(torch.tensor([1.5, 1.5, 3.0, 3.0])[:, None])
    gauge = Drift(
        subject.model, optimiser, folder, adapter=None, new_rows=np.array([rows - 2, rows - 1]), old_rows=None
    )
    assert gauge.measure(3) == {"tables": 0.5, "new_rows": 2.0, "all": pytest.approx(1.42, abs=0.3)}
    # a table of which most rows move: those that are held are no part of what moves
    most = np.arange(rows - 5, dtype=np.int32)
    subject = make_trainable(
        load_model(folder), Movable(frozenset(), {INPUT: Slice(0, most)}), seed=0, folder=folder, compute="fp32"
    )
    assert subject.parts.held
    optimiser = Optimiser(subject.model, set(subject.names), AdamSettings(), old_rows=None, parts=subject.parts)
    with torch.no_grad():
        subject.model.get_parameter(INPUT)[: rows - 5] *= 1.25
    gauge = Drift(subject.model, optimiser, folder, adapter=None, new_rows=None, old_rows=None)
    assert gauge.measure(3) == {"tables": 0.25, "all": 0.25}


class Alarm:
    """A gauge that warns at step 2 and stops at step 4."""

    name = "alarm"

    def measure(self, step: int) -> Mapping[str, Any]:
        return {"step": step, "text": "no number"}

    def judge(self, step: int, now: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        assert now == {"step": step, "text": "no number"} and start["step"] == 0
        if step == 4:
            raise TrainingFailed("the alarm went off")
        return "the alarm hums"


def test_a_gauge_may_warn_and_stop_and_its_words_are_no_column(
    tmp_path: Path, tiny: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt.train.trainable.Trainable.drift", lambda *given, **more: Alarm())
    with pytest.raises(TrainingFailed, match="went off"):
        run(tmp_path / "out", tiny, tiny_data)
    record = tmp_path / "out.partial" / "metrics.jsonl"
    rows = rows_of(record)
    assert rows[-1]["alarm/step"] == 4 and "alarm/text" not in rows[-1]
