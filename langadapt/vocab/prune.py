"""Which learned tokens stay: those the text really ends with, and the stepping stones that they are built of."""

from collections.abc import Callable, Sequence

from langadapt.vocab.merging import Learned, PairLearner

# Each round asks for exactly what the last one lost, so the gap shrinks by more than ten each time.
_ROUNDS = 12


def settle(
    merges: Sequence[Learned],
    *,
    min_count: int,
    uses_of: Callable[[Sequence[Learned]], dict[int, int]],
    complete: Callable[[int], bool],
) -> tuple[list[Learned], dict[int, int]]:
    """Drop tokens until every leaf is used at least `min_count` times and is `complete`; returns (kept, uses).

    A leaf is a token that no kept merge builds on. Only leaves may go: dropping another one would make its
    descendants unreachable. Dropping changes how words are cut, so uses are counted again after each round.
    """
    kept = list(merges)
    while True:
        uses = uses_of(kept)
        builders = _builders(kept)
        expected = dict(uses)
        going: set[int] = set()
        # latest first: a parent comes after all of its children and may become a leaf in the same round
        for merge in reversed(kept):
            if builders[merge.id] == 0 and (expected[merge.id] < min_count or not complete(merge.id)):
                going.add(merge.id)
                for part in (merge.left, merge.right):
                    if part in builders:
                        builders[part] -= 1
                        expected[part] += expected[merge.id]
        if not going:
            return kept, uses
        kept = [merge for merge in kept if merge.id not in going]


def _builders(merges: Sequence[Learned]) -> dict[int, int]:
    """How many merges use each new token."""
    builders = {merge.id: 0 for merge in merges}
    for merge in merges:
        for part in (merge.left, merge.right):
            if part in builders:
                builders[part] += 1
    return builders


def grow_to(
    size: int,
    learner: PairLearner,
    *,
    min_count: int,
    uses_of: Callable[[Sequence[Learned]], dict[int, int]],
    complete: Callable[[int], bool],
    learn: Callable[[int], bool],
) -> tuple[list[Learned], dict[int, int]]:
    """Learn more than `size` merges and settle until `size` tokens stay, or the text gives no more."""

    def settled(merges: Sequence[Learned]) -> tuple[list[Learned], dict[int, int]]:
        return settle(merges, min_count=min_count, uses_of=uses_of, complete=complete)

    target = size
    for _ in range(_ROUNDS):
        more = learn(target)
        kept, uses = settled(learner.merges[:target])
        if len(kept) >= size or not more:
            break
        target += size - len(kept)
    if len(kept) > size:
        # a merge that completes a stepping stone brings two tokens at once; the last learned save least
        kept, uses = settled(kept[:size])
        tried = {merge.id for merge in kept}
        for _ in range(_ROUNDS):
            if len(kept) >= size:
                break
            learn(target := target + _SPARE)
            extra = _single(learner.merges, kept, tried, complete)[: size - len(kept)]
            tried.update(merge.id for merge in extra)
            wider, wider_uses = settled(sorted([*kept, *extra], key=lambda merge: merge.id))
            if len(kept) < len(wider) <= size:
                kept, uses = wider, wider_uses
    return kept, uses


# Merges learned ahead when the last few tokens are picked one by one.
_SPARE = 16


def _single(
    learned: Sequence[Learned], kept: Sequence[Learned], tried: set[int], complete: Callable[[int], bool]
) -> list[Learned]:
    """Learned merges that could be added alone: not tried yet, whole text, both parts there."""
    new, there = {merge.id for merge in learned}, {merge.id for merge in kept}
    return [
        merge
        for merge in learned
        if merge.id not in tried
        and complete(merge.id)
        and all(part in there or part not in new for part in (merge.left, merge.right))
    ]
