"""The order of training blocks: permutation, quotas, plan, ledger."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import ConfigError, DataError
from langadapt.mixture.blend import Amount, byte_shares, check_shares, make_plan, replay_cap
from langadapt.mixture.ledger import ledger
from langadapt.mixture.permute import Permutation, mix64, mix64_many
from langadapt.mixture.plan import Plan, Source, positions_of, token_weights
from langadapt.mixture.quota import fill, slot_counts

keys = st.integers(0, (1 << 128) - 1)


@st.composite
def plans(draw: st.DrawFn, max_blocks: int = 40) -> Plan:
    length = draw(st.integers(2, 9))
    sources = []
    for number in range(draw(st.integers(1, 4))):
        tokens = draw(st.integers(1, max_blocks * length))
        blocks = -(-tokens // length)
        sources.append(Source(f"s{number}", 1, tokens * 3, tokens, blocks, draw(st.integers(1, 12))))
    return Plan(draw(st.integers(0, 9)), length, 0, 50, tuple(sources))


# permutation


@pytest.mark.parametrize("size", range(1, 301))
def test_it_is_a_bijection_and_the_vector_form_agrees(size: int) -> None:
    permutation = Permutation(size, 0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321 * size % (1 << 128))
    images = [permutation(index) for index in range(size)]
    assert sorted(images) == list(range(size))
    assert permutation.many(np.arange(size, dtype=np.uint64)).tolist() == images
    assert [permutation.inverse(image) for image in images] == list(range(size))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 1 << 62), key=keys, data=st.data())
def test_large_sizes_go_there_and_back(size: int, key: int, data: st.DataObject) -> None:
    permutation = Permutation(size, key)
    index = data.draw(st.integers(0, size - 1))
    image = permutation(index)
    assert 0 <= image < size
    assert permutation.inverse(image) == index
    assert permutation.many(np.array([index], dtype=np.uint64)).tolist() == [image]


def test_keys_give_different_orders_that_look_random() -> None:
    size = 4099
    first, second = (Permutation(size, key).many(np.arange(size, dtype=np.uint64)).astype(float) for key in (1, 2))
    assert (first == second).mean() < 0.005
    # a shuffled sequence has serial correlation 0 ± 1/sqrt(size); four of these is chance 6e-5
    for order in (first, second):
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / size**0.5
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 4 / size**0.5


def test_the_mixer_is_the_published_one() -> None:
    # first outputs of SplitMix64 from seed 0 (Vigna's reference code, as in Java's SplittableRandom)
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix64(gamma * step % (1 << 64)) for step in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    words = np.array([gamma * step % (1 << 64) for step in (1, 2, 3)], dtype=np.uint64)
    assert mix64_many(words).tolist() == outputs


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, 1)(index)


# quotas


def oracle_turns(counts: list[int]) -> list[int]:
    """Tijdeman's rule in the words of the paper, with exact fractions."""
    total, sources = sum(counts), len(counts)
    if sources == 1:
        return [0] * total
    weights = [Fraction(count, total) for count in counts]
    gap = Fraction(1, 2 * sources - 2)
    given_so_far = [0] * sources
    turns = []
    for turn in range(total):
        eligible = [i for i in range(sources) if weights[i] * (turn + 1) - given_so_far[i] >= gap]
        chosen = min(eligible, key=lambda i: ((1 - gap + given_so_far[i]) / weights[i], i))
        given_so_far[chosen] += 1
        turns.append(chosen)
    return turns


@settings(max_examples=80, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_turns_equal_the_oracle_and_never_stray(counts: list[int]) -> None:
    turns = fill(counts)
    assert turns == oracle_turns(counts)
    total, sources = sum(counts), len(counts)
    bound = 1 - Fraction(1, 2 * sources - 2) if sources > 1 else Fraction(0)
    seen = [0] * sources
    for position, source in enumerate(turns, 1):
        seen[source] += 1
        for count, amount in zip(counts, seen, strict=True):
            assert abs(amount - Fraction(count, total) * position) <= bound
    assert seen == counts


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_slots_follow_the_shares(parts: list[int]) -> None:
    shares = [part / sum(parts) for part in parts]
    counts = slot_counts(shares)
    assert sum(counts) == (4096 if min(shares) >= 0.005 else 65_536)
    assert min(counts) >= 1
    for count, share in zip(counts, shares, strict=True):
        # one slot by largest remainder; more only where tiny sources were given their one slot
        assert abs(count - share * sum(counts)) < 1 + len(parts) * (min(shares) * 65_536 < 1)


def test_largest_remainder_on_a_case_done_by_hand() -> None:
    # 4096/3 = 1365.33: the one slot left over goes to the first of the equal remainders
    assert slot_counts([1 / 3, 1 / 3, 1 / 3]) == [1366, 1365, 1365]
    # 0.4 % of 65,536 is 262.1
    assert slot_counts([0.004, 0.996]) == [262, 65_274]


@pytest.mark.parametrize("shares", [[], [0.5, 0.6], [1.0, 0.0], [1.2, -0.2]])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError):
        slot_counts(shares)


# plan


def oracle_order(plan: Plan, positions: int) -> list[tuple[int, int, int]]:
    """Deal blocks one after the other, holding every source's shuffled pass in a list."""
    turns = oracle_turns([source.count for source in plan.sources])
    epochs = [-1] * len(plan.sources)
    piles: list[list[int]] = [[] for _ in plan.sources]
    dealt = []
    for position in range(positions):
        source = turns[position % len(turns)]
        if not piles[source]:
            epochs[source] += 1
            size = plan.sources[source].blocks
            piles[source] = [plan.permutation(source, epochs[source])(turn) for turn in range(size)]
        dealt.append((source, epochs[source], piles[source].pop(0)))
    return dealt


@settings(max_examples=40, deadline=None)
@given(plan=plans())
def test_positions_equal_dealing_by_hand(plan: Plan) -> None:
    positions = 3 * plan.slots + 7
    expected = oracle_order(plan, positions)
    places = [plan.at(position) for position in range(positions)]
    assert [(place.source, place.epoch, place.block) for place in places] == expected
    sources, epochs, blocks = plan.at_many(2, positions)
    assert list(zip(sources.tolist(), epochs.tolist(), blocks.tolist(), strict=True)) == expected[2:]


@settings(max_examples=40, deadline=None)
@given(plan=plans(), cycles=st.integers(1, 3))
def test_counts_are_exact_at_the_end_of_every_table(plan: Plan, cycles: int) -> None:
    seen = [0] * len(plan.sources)
    for position in range(cycles * plan.slots):
        assert plan.turns_before(position) == seen
        seen[plan.at(position).source] += 1
    assert seen == [cycles * source.count for source in plan.sources]


@settings(max_examples=40, deadline=None)
@given(plan=plans(max_blocks=12))
def test_every_epoch_holds_every_block_once(plan: Plan) -> None:
    passes: dict[tuple[int, int], list[int]] = {}
    for position in range(6 * plan.slots):
        place = plan.at(position)
        passes.setdefault((place.source, place.epoch), []).append(place.block)
    for (source, epoch), blocks in passes.items():
        assert len(set(blocks)) == len(blocks)
        if (source, epoch + 1) in passes:
            assert sorted(blocks) == list(range(plan.sources[source].blocks))


def test_epochs_differ_in_order_and_in_cuts() -> None:
    plan = Plan(3, 64, 0, 50, (Source("a", 1, 1, 64 * 200, 200, 1),))
    orders = [[plan.permutation(0, epoch)(turn) for turn in range(200)] for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert len({plan.offset(0, epoch) for epoch in range(8)}) > 4
    assert all(0 <= plan.offset(0, epoch) < 64 for epoch in range(8))


@settings(max_examples=40, deadline=None)
@given(plan=plans())
def test_a_reloaded_plan_is_the_same_order(plan: Plan) -> None:
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert [again.at(position) for position in range(50)] == [plan.at(position) for position in range(50)]


@settings(max_examples=60, deadline=None)
@given(world=st.integers(1, 12), share=st.integers(1, 6), step=st.integers(0, 5))
def test_slices_are_disjoint_and_complete(world: int, share: int, step: int) -> None:
    batch = world * share
    read = [position for rank in range(world) for position in positions_of(step, batch, rank, world)]
    assert read == list(range(step * batch, (step + 1) * batch))


def test_processes_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError):
        positions_of(0, 10, 0, 3)


@pytest.mark.parametrize(
    "edit",
    [
        lambda plan: plan["stages"][0].update(counts=[1]),
        lambda plan: plan["stages"][0].update(slots=17),
        lambda plan: plan["stages"].append(plan["stages"][0]),
        lambda plan: plan["sources"][0].update(blocks=1),
        lambda plan: plan["sources"][0].update(tokens="many"),
        lambda plan: plan["sources"][0].update(colour="red"),
        lambda plan: plan.update(format=2),
        lambda plan: plan.pop("seed"),
    ],
)
def test_a_broken_plan_is_refused(edit) -> None:  # type: ignore[no-untyped-def]
    plan = Plan(0, 8, 0, 50, (Source("a", 1, 90, 30, 4, 3), Source("b", 1, 90, 30, 4, 1))).to_json()
    Plan.from_json(plan)
    edit(plan)
    with pytest.raises(DataError):
        Plan.from_json(plan)


# shares


def test_bytes_become_tokens() -> None:
    # b spells two bytes a token, a four: equal bytes need twice the tokens of b
    assert token_weights({"a": 0.5, "b": 0.5}, {"a": 4.0, "b": 2.0}) == pytest.approx({"a": 1 / 3, "b": 2 / 3})


def test_the_stream_has_the_wanted_bytes() -> None:
    amounts = {"hu": Amount(10, 3000, 1500), "fi": Amount(10, 1000, 700), "en": Amount(10, 9000, 2000)}
    plan = make_plan(amounts, {"en": 0.2}, seed=0, block_tokens=16, separator=0, vocabulary=50)
    found = dict(zip([source.name for source in plan.sources], plan.byte_shares(), strict=True))
    # a slot is 1/4096 of the tokens; bytes per token differ by a factor of 3.2 at most
    assert found == pytest.approx({"en": 0.2, "hu": 0.6, "fi": 0.2}, abs=4 / 4096)
    read = {"hu": 0.0, "fi": 0.0, "en": 0.0}
    for position in range(plan.slots):
        source = plan.sources[plan.at(position).source]
        read[source.name] += 16 * source.bytes / source.tokens
    assert {name: value / sum(read.values()) for name, value in read.items()} == pytest.approx(found)


def test_targets_share_the_rest_by_size() -> None:
    assert byte_shares({"a": 300, "b": 100, "en": 5000}, {"en": 0.2}) == pytest.approx({"a": 0.6, "b": 0.2, "en": 0.2})
    # one pass over 800 bytes of target at 80 % goes with 200 bytes of replay
    assert replay_cap(800, {"en": 0.2}, "en") == 4 * 200


@pytest.mark.parametrize(
    "replay", [{"fr": 0.2}, {"en": 0.0}, {"en": 1.0}, {"en": -0.1}, {"en": 0.6, "hu": 0.4}, {"en": 0.1, "hu": 0.1}]
)
def test_shares_that_make_no_mixture_are_refused(replay: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        check_shares({"hu": None, "en": None}, replay)


# ledger


@settings(max_examples=40, deadline=None)
@given(plan=plans(max_blocks=15), positions=st.integers(0, 150))
def test_the_ledger_balances_and_counts_what_was_seen(plan: Plan, positions: int) -> None:
    uses: dict[str, list[int]] = {source.name: [0] * source.blocks for source in plan.sources}
    for position in range(positions):
        place = plan.at(position)
        uses[plan.sources[place.source].name][place.block] += 1
    observed = {name: sum(counts) for name, counts in uses.items()}
    for book in (ledger(plan, positions), ledger(plan, positions, observed)):
        assert book["balance_tokens"] == 0
        assert book["consumed_tokens"] == positions * plan.block_tokens
        for source in plan.sources:
            entry, counts = book["sources"][source.name], uses[source.name]
            assert entry["consumed_blocks"] == sum(counts)
            assert entry["blocks_never_seen"] == counts.count(0)
            assert entry["complete_epochs"] == min(counts)
            over = source.blocks * plan.block_tokens - source.tokens
            assert entry["wrapped_tokens"] == counts[-1] * over
            if len(set(counts)) == 1:
                # after whole epochs every token is accounted for exactly
                assert entry["consumed_tokens"] == counts[0] * source.tokens + entry["wrapped_tokens"]


def test_a_block_too_few_shows_in_the_balance() -> None:
    plan = Plan(0, 8, 0, 50, (Source("a", 1, 90, 30, 4, 3), Source("b", 1, 90, 30, 4, 1)))
    assert ledger(plan, 8, {"a": 6, "b": 2})["balance_tokens"] == 0
    short = ledger(plan, 8, {"a": 5, "b": 2})
    assert short["balance_tokens"] == 8
    assert short["sources"]["a"]["difference_tokens"] == 8
    # one too many and one too few do not cancel out
    assert ledger(plan, 8, {"a": 5, "b": 3})["balance_tokens"] == 16
    assert ledger(plan, 8, {"a": 6, "b": 2, "c": 1})["balance_tokens"] == 8
