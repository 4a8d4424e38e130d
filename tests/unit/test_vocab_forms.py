"""Forms of protected words: which are let go because the target is full of the joins that they forbid."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langadapt
from langadapt.core.io import read_json_object
from langadapt.steps.extend_vocab import table
from langadapt.vocab import forms
from langadapt.vocab.guard import with_variants
from tests.contract.test_vocab_surgery import HUNGARIAN, file_of, train
from tests.fixtures.growing import prepared_lines

BASE = file_of(train())
letters = st.text("Ġozkah", min_size=1, max_size=4)
counts = st.dictionaries(letters, st.integers(1, 300), max_size=6)


def cut(word):
    return list(pairwise(BASE.model_stage().encode(word).ids))


@settings(max_examples=60, deadline=None)
@given(seen=counts, always=st.sets(letters, max_size=2), target=counts)
def test_forms_that_are_let_go_are_those_of_an_oracle(seen, always, target):
    """Pair by pair, with shares as fractions."""
    known = set(seen) | always
    free = {form for word in seen for form in with_variants([word], BASE.spelling)} - known
    joins = Counter(pair for word, count in target.items() for pair in cut(word) for _ in range(count))
    expected = set()
    for form in free:
        for pair in cut(form):
            if any(pair in cut(word) for word in known) or not joins[pair]:
                continue
            makers = {(word, other) for other in free if pair in cut(other) for word in seen}
            worth = sum(seen[word] for word, other in makers if other in with_variants([word], BASE.spelling))
            share = joins[pair] / joins.total()
            if share >= forms.LEAST_SHARE and share * sum(seen.values()) >= 2 * worth:
                expected.add(form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "TIMES", 2)  # drawn counts are small
        assert forms.too_dear(BASE, seen, always, target) == expected


def test_only_forms_go_and_only_dear_ones():
    target = {"oz": 500, "az": 500, "ok": 1}
    seen = {"Ġoz": 1, "the": 1000}
    assert "oz" in forms.too_dear(BASE, seen, [], target), "nobody wrote it, and the target is full of it"
    assert forms.too_dear(BASE, seen | {"oz": 1}, [], target) == frozenset(), "somebody wrote it"
    assert forms.too_dear(BASE, seen, ["oz"], target) == frozenset(), "always guarded"
    assert forms.too_dear(BASE, seen, ["koz"], target) == frozenset(), "another word forbids the join anyway"
    assert forms.too_dear(BASE, seen | {"Ġoz": 100}, [], target) == frozenset(), "its word is frequent"
    assert forms.too_dear(BASE, seen, [], {"az": 10**6, "oz": 100}) == frozenset(), "it saves next to nothing"
    assert forms.too_dear(BASE, {}, [], target) == frozenset()


def test_the_step_lets_forms_go_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text(BASE.extended(()), encoding="utf-8")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    settings = '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    (tmp_path / "model" / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    prepared_lines(tmp_path, "hu", "az ozoz kozoz hozott mozoz lozoz roz\n" * 30 + HUNGARIAN)
    prepared_lines(tmp_path, "en", "the Ozaukee hills and some houses\nthe people of the hill went\n")
    monkeypatch.setattr(forms, "TIMES", 0.01)
    made = {}
    for choice in ("worth", "all", "none"):
        made[choice] = langadapt.extend_vocab(
            out=tmp_path / choice,
            model=tmp_path / "model",
            corpus=tmp_path / "hu",
            guard=[tmp_path / "en"],
            size=30,
            guard_forms=choice,
        )
        facts = made[choice].facts
        record = read_json_object(made[choice].file("checks.json"))["guard_let_go"]
        assert record["forms"] == facts["guard_forms_let_go"] and facts["guarded_types_changed"] == 0
        assert (record["forms"] > 0) == (choice == "worth")
    types = {choice: artifact.facts["guarded_types"] for choice, artifact in made.items()}
    assert types["none"] < types["worth"] == types["all"] - made["worth"].facts["guard_forms_let_go"]
    assert any("forms of them" in note for note in table(made["worth"]).notes)
