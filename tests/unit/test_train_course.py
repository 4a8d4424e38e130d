"""Schedules, stages, places in the stream and the watch over the loss: pure functions, against obvious versions."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError
from langadapt.core.types import Slice
from langadapt.mixture.ledger import ledger
from langadapt.mixture.stream import Stream
from langadapt.train.branch import Places, make_places
from langadapt.train.schedule import Kind, Schedule, decay_start
from langadapt.train.spikes import PATIENCE, Watch
from langadapt.train.stages import StageOptions, make_course
from tests.fixtures.tiny import tiny_corpus


def schedule(kind: Kind, steps: int = 100, **more: float) -> Schedule:
    start = decay_start(steps, 0.2, not_before=int(more.pop("not_before", 0)))
    return Schedule(peak=2.0, steps=steps, warmup_steps=10, final_share=0.1, kind=kind, decay_from=start)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_every_schedule_rises_to_the_peak_and_never_above(kind: Kind) -> None:
    rates = [schedule(kind).at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert max(rates) == pytest.approx(2.0) and min(rates) > 0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(2.0 if kind == "constant" else 0.2)


def test_linear_and_wsd_in_numbers() -> None:
    assert schedule("linear").at(10 + 89 // 2) == pytest.approx(2.0 - 1.8 * 44 / 89)
    wsd = schedule("wsd")
    assert [wsd.at(step) for step in range(10, 80)] == [2.0] * 70
    assert wsd.at(80) == pytest.approx(0.2 + 1.8 * (1 - math.sqrt(1 / 20)))
    assert wsd.at(84) == pytest.approx(0.2 + 1.8 * (1 - 0.5))


def test_a_longer_wsd_run_is_the_same_until_the_shorter_one_decays() -> None:
    short, long = schedule("wsd", 100), schedule("wsd", 300)
    assert [short.at(step) for step in range(80)] == [long.at(step) for step in range(80)]


def test_a_branch_that_ends_soon_decays_at_once() -> None:
    branch = schedule("wsd", 90, not_before=80)
    assert branch.at(79) == 2.0 and branch.at(80) < 2.0 and branch.at(89) == pytest.approx(0.2)


def stage(**values: object) -> StageOptions:
    return StageOptions.model_validate(values)


def test_stages_divide_the_steps_and_scale_the_rate() -> None:
    part = Slice(0, np.array([1], dtype=np.int32))
    moving = [(frozenset({"table"}), {"table": part}), (frozenset({"table", "body"}), {})]
    wanted = [stage(share=0.25, strategy="embeddings", learning_rate_factor=5.0), stage(warmup_steps=4)]
    course = make_course(schedule("constant", 40), wanted, moving)
    assert [(part.first, part.last) for part in course.stages] == [(0, 10), (10, 40)]
    assert course.stage_at(9).names == {"table"} and course.stage_at(10).names == {"table", "body"}
    assert course.stage_at(9).still == {"table": part} and not course.stage_at(10).still
    assert course.stage_at(40) is course.stages[1]
    assert course.rate_at(9) == pytest.approx(10.0)
    assert [course.rate_at(step) for step in (10, 11, 13, 14)] == pytest.approx([0.5, 1.0, 2.0, 2.0])


def test_a_stage_without_options_is_the_run_that_it_was_before_there_were_any() -> None:
    assert "strategy_options" not in stage(strategy="layers").model_dump(mode="json")
    assert stage(strategy_options={"layers": "-1"}).model_dump(mode="json")["strategy_options"] == {"layers": "-1"}


def test_one_stage_is_no_stage() -> None:
    course = make_course(schedule("cosine"), ())
    assert [course.rate_at(step) for step in range(100)] == [schedule("cosine").at(step) for step in range(100)]
    assert course.stage_at(50).names is None


@pytest.mark.parametrize("shares", [[0.5, 0.4], [None, 0.5], [0.7, 0.5], [1.0, None], [0.001, None]])
def test_shares_that_do_not_add_up_are_refused(shares: list[float | None]) -> None:
    with pytest.raises(ConfigError):
        make_course(schedule("cosine"), [stage(share=share) for share in shares])


@pytest.mark.parametrize("skipped", [[], ["5:9"], ["0:3", "3:4", "20:31"], ["16:17"]])
def test_places_are_the_stream_without_what_is_left_out(skipped: list[str]) -> None:
    places = make_places(4, skipped, None)
    out = {place for text in skipped for place in range(*map(int, text.split(":")))}
    expected = [place for place in range(200) if place not in out]
    found = [place for step in range(20) for place in places.at(step)]
    assert found == expected[:80]
    for steps in range(20):
        end = places.end(steps)
        assert end - sum(map(len, places.skipped_before(end))) == 4 * steps


def test_places_after_a_branch_go_on_where_it_stood() -> None:
    whole = make_places(4, ["6:8", "50:55"], None)
    rest = Places(4, whole.end(5), 5, whole.skipped)
    assert [rest.at(step) for step in range(5, 20)] == [whole.at(step) for step in range(5, 20)]
    assert rest.end(12) == whole.end(12)


@pytest.mark.parametrize("wanted", [["5"], ["a:b"], ["7:7"], ["9:4"], ["1:5", "4:9"], ["-1:4"]])
def test_ranges_that_are_none_are_refused(wanted: list[str]) -> None:
    with pytest.raises(ConfigError, match="skip_positions"):
        make_places(4, wanted, None)


def test_the_ledger_balances_without_what_was_left_out(tmp_path: Path, tiny: Path) -> None:
    corpora = {lang: str(tiny_corpus(tmp_path / "text", lang, 20)) for lang in ("hu", "en")}
    data = langadapt.mix(
        out=tmp_path / "data", model=tiny, corpora=corpora, replay={"en": 0.3}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    stream = Stream.open(data.path)
    read = [place for place in range(50) if place not in range(7, 12) and place != 30]
    seen: dict[str, int] = {}
    for place in read:
        source = stream.block(place).source
        seen[source] = seen.get(source, 0) + 1
    account = ledger(stream.plan, 50, seen, skipped=[range(7, 12), range(30, 31)])
    assert account["balance_tokens"] == 0 and account["consumed_tokens"] == 44 * 32 and account["positions"] == 44
    assert ledger(stream.plan, 50, seen)["balance_tokens"] > 0


def test_a_steady_loss_a_noisy_one_and_single_spikes_are_no_complaint() -> None:
    noise = random.Random(1)
    for shape in (lambda n: 3.0, lambda n: 5 - 0.01 * n + noise.gauss(0, 0.2), lambda n: 9.0 if n % 7 == 0 else 3.0):
        watch = Watch(guessing=10.0)
        for number in range(300):
            watch.add(shape(number))
            assert watch.complaint() is None


def test_twenty_high_losses_in_a_row_are_one_and_nineteen_are_not() -> None:
    noise = random.Random(1)
    watch = Watch(guessing=10.0)
    for _ in range(50):
        watch.add(3.0 + noise.gauss(0, 0.05))
    for high in range(1, PATIENCE):
        watch.add(4.0)
        assert watch.high == high and watch.complaint() is None
    watch.add(3.0)
    assert watch.high == 0
    for _ in range(PATIENCE):
        watch.add(4.0)
    assert "20 steps in a row" in str(watch.complaint())


def test_a_loss_far_beyond_guessing_needs_no_median() -> None:
    watch = Watch(guessing=math.log(300))
    for loss in (6.0, 1e8, 1e8):
        watch.add(loss)
        assert watch.complaint() is None
    watch.add(1e8)
    assert "guessing" in str(watch.complaint())


def test_stochastic_rounding_keeps_the_mean_where_rounding_to_nearest_loses_it() -> None:
    from langadapt.train.optimiser import AdamSettings, Optimiser

    torch_model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False)).to(torch.bfloat16)
    with torch.no_grad():
        torch_model[0].weight.fill_(1.0)
    optimiser = Optimiser(torch_model, {"0.weight"}, AdamSettings(weight_decay=0.0, rounds=True), old_rows=None)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        for _ in range(10):
            torch_model[0].weight.grad = torch.ones_like(torch_model[0].weight)
            # each step moves by 1e-4; bf16 below 1 has a resolution of 4e-3
            optimiser.step(1e-4, optimiser.gradient_norm())
    assert float(torch_model[0].weight.detach().float().mean()) == pytest.approx(1 - 10e-4, abs=3e-4)
