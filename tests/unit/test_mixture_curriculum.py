"""Replay in the first part of the stream: realised shares, the ledger, and budgets where shares change."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.mixture.blend import Amount, make_plan, replay_cap, source_facts
from langadapt.mixture.curriculum import Curriculum, curriculum_of, planned_tokens
from langadapt.mixture.ledger import ledger
from langadapt.mixture.plan import Plan
from langadapt.mixture.stream import Stream
from langadapt.train.budget import plan_budget
from langadapt.train.reading import early_words, stream_of_epochs, stream_until, tokens_read
from tests.fixtures.tiny import tiny_corpus

BLOCK = 16
AMOUNTS = {"hu": Amount(10, 60_000, 20_000), "fi": Amount(10, 20_000, 9_000), "en": Amount(10, 9_000, 2_000)}


def made(until: float, after: dict[str, float], planned: int | None = None, replay: float = 0.2) -> Plan:
    return make_plan(
        AMOUNTS, {"en": replay}, seed=3, block_tokens=BLOCK, separator=0, vocabulary=50,
        curriculum=Curriculum(until, after, planned),
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.9), st.sampled_from([{}, {"en": 0.05}, {"en": 0.6}]), st.integers(0, 4000))
def test_at_every_moment_each_source_is_within_a_block_of_the_schedule(
    until: float, after: dict[str, float], stop: int
) -> None:
    plan = made(until, after)
    start = plan.later[0].start
    assert start == round(until * planned_tokens(plan, {"en"}, Curriculum(until, after)) / BLOCK)
    early, late = plan.token_shares(0), plan.token_shares(start)
    for position in (min(stop, start), max(stop, start)):
        # within each part a count is off by less than one; a source that has no turns later adds nothing there
        room = 1.0 if position <= start or not after else 2.0
        for count, one, other in zip(plan.turns_before(position), early, late, strict=True):
            wanted = min(position, start) * one + max(0, position - start) * other
            assert abs(count - wanted) < (room if other else 1.0) + (0 if one in (0, 1) else 1e-6)


@pytest.mark.parametrize("after", [{}, {"en": 0.1}])
def test_the_stream_is_a_function_of_position_and_every_epoch_holds_each_block_once(after: dict[str, float]) -> None:
    plan = made(0.3, after)
    plan = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    start, count = plan.later[0].start, 6000
    numbers, epochs, blocks = plan.at_many(0, count)
    assert all(
        (place.source, place.epoch, place.block) == (numbers[at], epochs[at], blocks[at])
        for at in (0, 1, start - 1, start, start + 1, count - 1)
        for place in (plan.at(at),)
    )
    seen: dict[tuple[int, int], list[int]] = {}
    for number, epoch, block in zip(numbers.tolist(), epochs.tolist(), blocks.tolist(), strict=True):
        seen.setdefault((number, epoch), []).append(block)
    for (number, epoch), found in seen.items():
        assert len(set(found)) == len(found)
        if (number, epoch + 1) in seen:
            assert sorted(found) == list(range(plan.sources[number].blocks)), "no block is lost where stages meet"
    joined = [value.tolist() for value in plan.at_many(start - 7, start + 5)]
    assert joined == [each[start - 7 : start + 5].tolist() for each in (numbers, epochs, blocks)]
    # the first part is that of the stream without a curriculum
    plain = make_plan(AMOUNTS, {"en": 0.2}, seed=3, block_tokens=BLOCK, separator=0, vocabulary=50)
    assert [plan.at(at) for at in range(start)] == [plain.at(at) for at in range(start)]
    english = plan.sources.index(next(each for each in plan.sources if each.name == "en"))
    assert (english in numbers[start:].tolist()) == bool(after)


def test_the_ledger_balances_across_the_bend() -> None:
    plan = made(0.25, {})
    start = plan.later[0].start
    for end in (start - 1, start, start + 999):
        account = ledger(plan, end, skipped=[range(start - 3, min(end, start + 4))])
        assert account["balance_tokens"] == 0
    assert account["sources"]["en"]["consumed_blocks"] == plan.turns_before(start - 3)[0]


def test_facts_are_those_of_the_planned_stream_read_block_by_block() -> None:
    curriculum, replay = Curriculum(0.2, {"en": 0.05}), {"en": 0.2}
    plan = made(0.2, {"en": 0.05})
    planned = planned_tokens(plan, replay, curriculum)
    facts = source_facts(plan, dict.fromkeys(AMOUNTS, "und"), replay, curriculum)
    counts = dict.fromkeys(AMOUNTS, 0)
    for at in range(planned // BLOCK):
        counts[plan.sources[plan.at(at).source].name] += 1
    read = {name: count * AMOUNTS[name].bytes / AMOUNTS[name].tokens for name, count in counts.items()}
    for name, entry in facts.items():
        assert entry["share_tokens"] == pytest.approx(counts[name] / sum(counts.values()), abs=0.002)
        assert entry["share_bytes"] == pytest.approx(read[name] / sum(read.values()), abs=0.002)
    assert [part["share_bytes"] for part in facts["en"]["course"]] == pytest.approx([0.2, 0.05], abs=0.001)
    # planned is one pass over the target that is through first
    once = min(AMOUNTS[name].tokens / BLOCK - counts[name] for name in ("hu", "fi"))
    assert abs(once) <= 2


def test_the_cap_is_what_is_read_early_and_is_the_old_one_without_a_bend() -> None:
    replay = {"en": 0.2}
    assert replay_cap(8000, replay, "en", Curriculum(0.5, {"en": 0.2})) == replay_cap(8000, replay, "en") == 8000
    # B bytes of stream: 0.1 x 0.8 B + 0.9 B = 9,800, so B = 10,000, of which 0.02 B are English
    assert replay_cap(9800, replay, "en", Curriculum(0.1, {})) == 200
    assert replay_cap(9800, replay, "en", Curriculum(0.1, {}, planned_tokens=5)) == replay_cap(9800, replay, "en")


@pytest.mark.parametrize(
    ("until", "after", "planned", "replay"),
    [
        (None, {"en": 0.1}, None, {"en": 0.2}),
        (None, {}, 1000, {"en": 0.2}),
        (0.1, {}, None, {}),
        (0.1, {"fr": 0.1}, None, {"en": 0.2}),
        (0.1, {"en": 1.0}, None, {"en": 0.2}),
        (0.1, {"en": 0.5, "fr": 0.5}, None, {"en": 0.2, "fr": 0.2}),
    ],
)
def test_what_makes_no_schedule_is_refused(
    until: float | None, after: dict[str, float], planned: int | None, replay: dict[str, float]
) -> None:
    with pytest.raises(ConfigError):
        curriculum_of(until, after, planned, replay)


def test_a_part_without_a_block_is_refused() -> None:
    with pytest.raises(DataError, match="nothing would be replayed"):
        made(0.01, {}, planned=100)


@pytest.mark.parametrize(
    "edit",
    [
        lambda stages: stages[1].update(start=0),
        lambda stages: stages[1]["bases"].reverse(),
        lambda stages: stages[1]["counts"].append(0),
        lambda stages: stages[1].update(slots=5),
        lambda stages: stages[1]["counts"].__setitem__(0, -1),
    ],
)
def test_stages_that_do_not_follow_each_other_are_refused(edit: Any) -> None:
    plan = made(0.3, {"en": 0.1}).to_json()
    edit(plan["stages"])
    with pytest.raises(DataError):
        Plan.from_json(plan)


# budgets

COURSE = {
    "hu": {"role": "target", "tokens": 90_000, "share_tokens": 0.98,
           "course": [{"first": 0, "share_tokens": 0.8}, {"first": 10_000, "share_tokens": 1.0}]},
    "en": {"role": "replay", "tokens": 2_000, "share_tokens": 0.02,
           "course": [{"first": 0, "share_tokens": 0.2}, {"first": 10_000, "share_tokens": 0.0}]},
}  # fmt: skip


@pytest.mark.parametrize("total", [0, 1, 9_999, 10_000, 10_001, 92_000, 400_000])
def test_tokens_read_are_counted_token_by_token(total: int) -> None:
    for source in COURSE.values():
        course: Any = source["course"]
        slow = sum(course[0 if at < 10_000 else 1]["share_tokens"] for at in range(min(total, 20_000)))
        slow += max(0, total - 20_000) * course[1]["share_tokens"]
        assert tokens_read(source, total) == pytest.approx(slow, abs=1e-6)
    assert stream_until(COURSE["hu"], tokens_read(COURSE["hu"], total)) == pytest.approx(total, abs=1e-6)
    assert stream_until(COURSE["en"], 2_001.0) == float("inf")


def budget(**wishes: Any) -> Any:
    given = {"parameters": 10**6, "block_tokens": 256, "tokens": None, "steps": None, "batch_tokens": None,
             "warmup_steps": None, "max_epochs": 4.0} | wishes  # fmt: skip
    return plan_budget(COURSE, **given)


def test_a_budget_reads_the_target_once_and_says_how_often_each_source_is_seen() -> None:
    plan = budget()
    assert plan.tokens == pytest.approx(92_000, abs=plan.batch_tokens)
    assert plan.epochs == {"en": 1.0, "hu": pytest.approx((plan.tokens - 2_000) / 90_000, abs=1e-4)}
    assert budget(tokens=5_120).epochs == {"en": pytest.approx(0.512), "hu": pytest.approx(4_096 / 90_000, abs=1e-4)}
    with pytest.raises(ConfigError, match=r"4\.2 times") as caught:
        budget(tokens=380_000)
    largest = int(str(caught.value.hint).split("--tokens ")[1].split("`")[0])
    assert budget(tokens=largest, batch_tokens=1024).epochs["hu"] <= 4.0
    with pytest.raises(ConfigError):
        budget(tokens=largest + 1024, batch_tokens=1024)


def test_the_course_of_a_constant_share_is_the_constant_share() -> None:
    flat = {"tokens": 777, "share_tokens": 0.3}
    bent = flat | {"course": [{"first": 0, "share_tokens": 0.3}, {"first": 50, "share_tokens": 0.3}]}
    assert stream_of_epochs([bent], 2.5) == pytest.approx(stream_of_epochs([flat], 2.5))


def test_a_run_of_another_length_says_what_became_of_the_early_part() -> None:
    assert early_words(COURSE, None, 92_000) is None
    same = early_words(COURSE, 92_000, 92_160)
    assert same is not None and "en mostly or only in the first 10,000 tokens, 11% of this run" in same
    assert "planned" not in same
    longer = str(early_words(COURSE, 92_000, 184_000))
    assert "5% of this run, not the 11% that was planned" in longer and "planned_tokens=184000" in longer
    assert "all of this run" in str(early_words(COURSE, 92_000, 8_000))


# steps


def test_mixed_and_trained_english_is_read_early_only(tmp_path: Path, tiny: Path) -> None:
    corpora = {lang: str(tiny_corpus(tmp_path / "text", lang, 60)) for lang in ("hu", "en")}
    same: dict[str, Any] = {
        "model": str(tiny), "corpora": corpora, "replay": {"en": 0.25}, "block_tokens": 32,
        "document_separator": "<|endoftext|>",
    }  # fmt: skip
    plain = langadapt.mix(out=tmp_path / "plain", **same)
    assert not {"replay_until", "replay_after", "planned_tokens"} & plain.manifest["config"].keys()
    assert "planned_tokens" not in plain.facts and "course" not in plain.facts["sources"]["en"]
    data = langadapt.mix(out=tmp_path / "data", replay_until=0.2, **same)
    assert data.manifest["config"]["replay_until"] == 0.2 and "replay_after" not in data.manifest["config"]
    assert data.facts["sources"]["en"]["bytes"] < plain.facts["sources"]["en"]["bytes"] / 3
    stream, planned = Stream.open(data.path), data.facts["planned_tokens"]
    end = stream.plan.later[0].start
    assert end * 32 == pytest.approx(0.2 * planned, abs=32)
    names = [stream.block(at).source for at in range(planned // 32)]
    assert names[:end].count("en") == pytest.approx(0.25 * end, abs=0.03 * end) and "en" not in names[end:]
    made = langadapt.cpt(
        out=tmp_path / "out", model=str(tiny), data=str(data.path), steps=2, batch_tokens=end * 32, compute="fp32",
        learning_rate=1e-3, probe_every=9, threads=1, max_epochs=4.0,
    )  # fmt: skip
    account = json.loads((made.path / "ledger.json").read_text())
    assert account["balance_tokens"] == 0 and account["sources"]["en"]["consumed_blocks"] == names.count("en")
