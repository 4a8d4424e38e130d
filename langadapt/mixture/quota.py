"""A short table of turns that keeps every source within one block of its share at every moment."""

from collections.abc import Sequence

from langadapt.core.errors import ConfigError

# 4,096 slots keep every share within 0.025 % and the table small; a share under 0.5 % would be off by 5 % of
# itself, so it gets 65,536.
SLOTS = 4096
SLOTS_FOR_SMALL_SHARES = 65_536
SMALL_SHARE = 0.005


def slot_counts(shares: Sequence[float]) -> list[int]:
    """Whole numbers of slots in proportion to `shares` by largest remainder; every source gets at least one.

    `shares` are positive and sum to 1; the counts sum to 4,096, or 65,536 if a share is below 0.5 %.
    """
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError(f"shares should be positive and sum to 1, these are {list(shares)}")
    slots = SLOTS if min(shares) >= SMALL_SHARE else SLOTS_FOR_SMALL_SHARES
    wanted = [share * slots for share in shares]
    counts = [int(amount) for amount in wanted]
    # ties go to the earlier source, so that equal shares always give the same counts
    by_remainder = sorted(range(len(shares)), key=lambda source: (counts[source] - wanted[source], source))
    for source in by_remainder[: slots - sum(counts)]:
        counts[source] += 1
    for source, count in enumerate(counts):
        if count == 0:
            counts[source] = 1
            counts[counts.index(max(counts))] -= 1
    return counts


def fill(counts: Sequence[int]) -> list[int]:
    """Which source has each of the sum(counts) turns: Tijdeman 1980, The chairman assignment problem.

    With K sources of weights w, no running count c(p) ever differs from w·p by more than 1 - 1/(2K - 2), the best
    possible. In whole numbers, so that every machine gives the same table.
    """
    slots, sources = sum(counts), len(counts)
    if sources == 1:
        return [0] * slots
    scale = 2 * sources - 2
    given = [0] * sources
    table = []
    for turn in range(1, slots + 1):
        chosen, due = -1, (0, 1)
        for source, count in enumerate(counts):
            # eligible: w·turn - c >= 1/scale
            if (count * turn - given[source] * slots) * scale < slots:
                continue
            # deadline (1 - 1/scale + c) / w, as a fraction; the common factor slots/scale is left out
            deadline = (scale * (1 + given[source]) - 1, count)
            if chosen < 0 or deadline[0] * due[1] < due[0] * deadline[1]:
                chosen, due = source, deadline
        given[chosen] += 1
        table.append(chosen)
    return table
