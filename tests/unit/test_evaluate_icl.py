"""Questions answered from examples: that they are what they claim, scored by a slow oracle, and as a warning."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError, DataError, TrainingFailed
from langadapt.evaluate import icl
from langadapt.evaluate.icl import Answered, Question, answer, compare, questions, same_tokens, sentence
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.score import SegmentScore, TextScore
from langadapt.report.metrics import rows_of
from langadapt.train.icl_gauge import IclGauge

ASKED = questions(20, seed=1)


def solve(task: str, shown: list[str], examples: dict[str, str]) -> list[str]:
    """Every task written again."""
    if task == "pairs":
        return [examples[shown[0]]]
    if task == "rise":
        return [str(int(shown[-1]) + 1)]
    return {
        "copy": shown,
        "double": [each for each in shown for _ in range(2)],
        "largest": sorted(shown)[-1:],
        "first": shown[:1],
        "last": shown[-1:],
    }[task]


@pytest.mark.parametrize("asked", ASKED, ids=lambda each: each.task)
def test_a_question_shows_examples_of_its_task_and_has_one_right_answer(asked: Question) -> None:
    *examples, last = asked.prompt.split("\n")
    pairs = [(line.split(" -> ")[0], line.split(" -> ")[1]) for line in examples]
    assert len(pairs) == icl.SHOTS and last.endswith(" ->")
    known = dict(pairs)
    for one, other in pairs:
        assert solve(asked.task, one.split(), known) == other.split()
    right = " " + " ".join(solve(asked.task, last.removesuffix(" ->").split(), known))
    assert asked.answers[0] == right and asked.answers.count(right) == 1
    assert len(set(asked.answers)) == icl.CHOICES
    assert len({len(each) for each in asked.answers}) == 1, "no answer is told by its length"


def test_questions_are_a_function_of_the_seed_and_in_no_language() -> None:
    assert questions(20, seed=1) == ASKED != questions(20, seed=2)
    few = questions(3, seed=1)
    assert [each for each in few if each.task == "copy"] == [each for each in ASKED if each.task == "copy"][:3]
    assert {each.task for each in ASKED} == {*icl.TASKS, "pairs"}
    for each in ASKED:
        text = each.prompt + "".join(each.answers)
        assert text.isascii() and not re.search("[a-z]{2}", text)


def test_no_place_among_the_answers_gives_the_right_one_away() -> None:
    """Somebody who has seen no example cannot tell: the right answer is alphabetically anywhere."""
    for task in ("last", "pairs", "double", "first"):
        ranks = [sorted(each.answers).index(each.answers[0]) for each in questions(200, seed=5) if each.task == task]
        assert all(ranks.count(rank) > 25 for rank in range(4)), task


def test_surprise_is_that_of_plain_forward_passes(tiny: Path) -> None:
    model, tokenizer = load_model(tiny), load_tokenizer(tiny)
    asked = questions(1, seed=4)
    for each, found in zip(asked, answer(model, tokenizer, asked, prefix_id=0), strict=True):
        chances = []
        for choice in each.answers:
            ids = tokenizer(each.prompt + choice, add_special_tokens=False)["input_ids"]
            before = len(tokenizer(each.prompt, add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[0, *ids]])).logits[0].double().log_softmax(-1)
            # the answer begins with a space, at which this tokenizer always cuts
            chances.append(math.exp(sum(float(logits[at, ids[at]]) for at in range(before, len(ids)))))
        assert found.bits == pytest.approx(-math.log2(chances[0] / sum(chances)), abs=1e-4)
        assert found.right == (chances[0] == max(chances)) and found.task == each.task


def scored(monkeypatch: pytest.MonkeyPatch, nll: Any) -> list[Answered]:
    def score(model: Any, tokenizer: Any, texts: Any, **more: Any) -> list[TextScore]:
        return [TextScore(text.id, (SegmentScore(0, 2, nll(at % 4), 1),)) for at, text in enumerate(texts)]

    monkeypatch.setattr(icl, "score_texts", score)
    return answer(None, None, ASKED[:3], prefix_id=0)  # type: ignore[arg-type]


def test_sure_unsure_and_broken_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(each.right and each.bits < 0.01 for each in scored(monkeypatch, lambda at: 10.0 * (at > 0)))
    assert all(not each.right and each.bits == 2.0 for each in scored(monkeypatch, lambda at: 1234.5))
    assert all(not each.right and each.bits > 1000 for each in scored(monkeypatch, lambda at: 1e4 * (at == 0)))
    with pytest.raises(DataError, match="no number"):
        scored(monkeypatch, lambda at: math.nan)


def rows(bits: float, right: int, count: int = 40) -> list[Answered]:
    return [Answered("copy" if at % 2 else "sort", at < right, bits + 0.1 * (at % 5)) for at in range(count)]


def test_models_are_compared_question_by_question() -> None:
    found = compare({"base": rows(1.0, 30), "adapted": rows(1.5, 20)}, samples=500, seed=0)
    base, apart = found["models"]["base"], found["differences"]["adapted - base"]
    assert base["bits"] == pytest.approx(1.2) and base["right"] == 0.75 and base["bits_low"] < 1.2 < base["bits_high"]
    assert base["tasks"] == {"copy": 0.75, "sort": 0.75} and found["questions"] == 40
    # every question costs half a bit more, so nothing is left to chance
    assert [apart["bits"], apart["bits_low"], apart["bits_high"]] == pytest.approx([0.5] * 3)
    assert apart["verdict"] == "worse" and apart["right"] == -0.25
    said = sentence(found)
    assert "worse" in said and "1.70 bits a question and 50% right, the base model 1.20 and 75%" in said
    same = compare({"base": rows(1.0, 30), "adapted": rows(1.0, 30)}, samples=500, seed=0)
    assert same["differences"]["adapted - base"]["verdict"] == "no detectable change"
    few = compare({"base": rows(1.0, 3, 4), "adapted": rows(1.5, 2, 4)}, samples=500, seed=0)
    assert "too few" in sentence(few)


def test_the_warning_needs_a_rise_that_is_sure() -> None:
    def value(bits: list[float]) -> dict[str, Any]:
        return IclGauge(lambda: [(bit < 1, bit) for bit in bits], guessing=2.0, most=None).measure(1)

    calm, loud = [1.0, 0.5, 1.5, 0.9] * 10, [1.3, 0.8, 1.9, 1.1] * 10
    start = value(calm)
    assert start["bits"] == pytest.approx(0.975) and start["right"] == 0.5 and len(start["each"]) == 40
    gauge = IclGauge(list, guessing=2.0, most=0.5)
    assert gauge.judge(5, value(loud), {}) is None
    assert gauge.judge(5, start, start) is None and gauge.judge(5, start, value(loud)) is None
    said = str(gauge.judge(5, value(loud), start))
    assert "from 0.97 to 1.27 bits" in said and "at step 5" in said and "+0.28 to +0.32" in said
    # the same mean rise from a few questions is no news
    noisy = [each + (12.0 if at == 0 else 0.0) for at, each in enumerate(calm)]
    assert gauge.judge(5, value(noisy), start) is None
    with pytest.raises(TrainingFailed, match="being lost") as caught:
        gauge.judge(5, value([each + 0.55 for each in calm]), start)
    assert "max_icl_loss=0.7" in str(caught.value.hint)


# steps


def test_a_run_is_watched_and_its_model_compared_by_the_same_questions(
    tmp_path: Path, tiny: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icl, "PER_TASK", 3)
    monkeypatch.setattr(icl.questions, "__defaults__", (3,))
    asked: dict[str, Any] = {
        "model": str(tiny), "data": str(tiny_data), "steps": 4, "batch_tokens": 128, "learning_rate": 3e-2,
        "probe_every": 2, "threads": 1, "compute": "fp32", "icl_probe": True,
    }  # fmt: skip
    made = langadapt.cpt(out=tmp_path / "out", **asked)
    lines = [json.loads(line) for line in (made.path / "metrics.jsonl").read_text().splitlines()]
    probes = [line["icl"] for line in lines if "probes" in line]
    assert [len(each["each"]) for each in probes] == [21] * 3
    assert [row["icl/bits"] for row in rows_of(made.path / "metrics.jsonl") if "icl/bits" in row] == [
        each["bits"] for each in probes
    ]
    scores = langadapt.evaluate(
        out=tmp_path / "scores", base=str(tiny), adapted=str(made.path), icl=True, continuations=0, compute="fp32",
        sets={"hu": str(tiny_data.parent / "text" / "hu.jsonl")}, set_bytes=2000, segment_bytes=200, context_bytes=100,
    )  # fmt: skip
    summary = json.loads((scores.path / "summary.json").read_text())["icl"]
    assert summary["questions"] == 21 and summary["same_tokens"] == 1.0
    for role, each in (("base", probes[0]), ("adapted", probes[-1])):
        assert summary["models"][role]["bits"] == pytest.approx(each["bits"], abs=2e-3)
        assert summary["models"][role]["right"] == pytest.approx(each["right"], abs=1e-3)
    written = [json.loads(line) for line in (scores.path / "scores.jsonl").read_text().splitlines()]
    assert [(line["metric"], line["model"]) for line in written if line["set"] == "icl"] == [
        (metric, model) for metric in ("icl_bits", "icl_right") for model in ("base", "adapted", "adapted - base")
    ]
    report = langadapt.report(out=tmp_path / "report", scores=str(scores.path))
    for name in ("report.md", "report.html"):
        assert "bits a question" in (report.path / name).read_text()
    monkeypatch.setattr(IclGauge, "measure", lambda gauge, step: {"bits": step, "right": 0, "each": [step, step]})
    with pytest.raises(TrainingFailed, match="in-context learning is being lost"):
        langadapt.cpt(out=tmp_path / "stopped", **asked, max_icl_loss=1.5)
    with pytest.raises(ConfigError, match="--icl-probe"):
        langadapt.cpt(out=tmp_path / "x", **(asked | {"icl_probe": False}), max_icl_loss=1.5)


def test_without_it_an_evaluation_is_what_it_was(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    text = str(tiny_data.parent / "text" / "hu.jsonl")
    scores = langadapt.evaluate(
        out=tmp_path / "scores",
        base=str(tiny),
        adapted=str(tiny),
        sets={"hu": text},
        continuations=0,
        set_bytes=2000,
        segment_bytes=200,
        context_bytes=100,
    )
    assert "icl" not in scores.manifest["config"]
    assert "icl" not in json.loads((scores.path / "summary.json").read_text())


def test_tokenizers_are_compared_on_the_questions(tmp_path: Path, tiny: Path) -> None:
    from tests.fixtures.tiny import tiny_tokenizer

    one, other = load_tokenizer(tiny), load_tokenizer(tiny_tokenizer(tmp_path / "other", split_digits=False))
    assert same_tokens(ASKED, one, one) == 1.0
    assert 0.0 <= same_tokens(ASKED, one, other) <= 1.0
