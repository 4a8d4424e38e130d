"""The first look at a model ends in time, however slow the machine; the clock is a fake one."""

from types import SimpleNamespace

import pytest

from langadapt.core.progress import Progress
from langadapt.evaluate import first_look
from langadapt.model.score import ScoredText

LIMIT = 120.0
TEXTS = {name: [(f"{name}{number}", "a" * 400) for number in range(20)] for name in ("target", "source")}


class Clock:
    """Seconds that pass only while a passage is scored."""

    def __init__(self, each: float) -> None:
        self.now, self.each, self.texts = 1000.0, each, list[str]()

    def monotonic(self) -> float:
        return self.now

    def score(self, model: object, tokenizer: object, texts: list[ScoredText], **more: object) -> list[SimpleNamespace]:
        self.now += self.each * len(texts)
        self.texts += [text.id for text in texts]
        return [SimpleNamespace(id=text.id, nll=300.0, bytes=400) for text in texts]


def looked(each: float, monkeypatch: pytest.MonkeyPatch, heads: int = 3) -> tuple[dict[str, first_look.Look], float]:
    clock = Clock(each)
    monkeypatch.setattr(first_look, "time", clock)
    monkeypatch.setattr(first_look, "score_texts", clock.score)
    monkeypatch.setattr(first_look, "candidates", lambda tokenizer: {f"<{number}>": number for number in range(heads)})
    model = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(first_look, "load_model", lambda folder: model)
    found = first_look.look(
        None, None, TEXTS, separator_from="source", compute="fp32", device="cpu", seconds=LIMIT, progress=Progress(),
        name="m",
    )  # type: ignore[arg-type]  # fmt: skip
    return found, clock.now - 1000.0


@pytest.mark.parametrize("each", [0.01, 0.5, 1.9, 2.1, 3.0, 7.0, 15.0, 20.0, 24.0, 39.0])
@pytest.mark.parametrize("heads", [1, 3])
def test_scoring_ends_in_time(each: float, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, took = looked(each, monkeypatch, heads)
    assert took <= LIMIT and all(look.scores for look in found.values())
    counts = [len(look.scores) for look in found.values()]
    assert max(counts) - min(counts) <= 4, "both languages get their share"
    if each < 1:
        assert counts == [20, 20]
    if each >= 7:
        # little is left over: another piece for each would not have fitted
        assert took + 2 * each * 2 > LIMIT - each


def test_a_model_that_takes_too_long_for_anything_gets_one_passage_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found, took = looked(90.0, monkeypatch, heads=1)
    assert [len(look.scores) for look in found.values()] == [1, 1] and took == 3 * 90.0
