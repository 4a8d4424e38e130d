"""The token ledger: what a run should have read, what it did read, and that the two agree."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langadapt.mixture.plan import Plan
from langadapt.mixture.turns import Numbers

# Blocks looked up at once when a run is recounted; 8 MiB of positions.
_CHUNK = 1 << 20


def ledger(
    plan: Plan, positions: int, observed: Mapping[str, int] | None = None, *, skipped: Sequence[range] = ()
) -> dict[str, Any]:
    """Account for the first `positions` blocks of the stream, per source and in sum.

    Planned comes from the quotas in closed form; consumed is `observed` (blocks per source, as the loop counted them)
    or, without it, a recount of every position. `balance_tokens` sums, without signs, what planned, recount and
    consumed differ by: 0 in a correct run. Tokens of a source = epochs × its tokens + what the
    ring repeated at its end (`wrapped_tokens`, less than one block an epoch). Bytes are tokens × bytes per token.
    Positions in `skipped` (disjoint, below `positions`) were left out on purpose: they are not planned either.
    """
    length = plan.block_tokens
    left_out = [_uses(plan, each) for each in skipped]
    planned = [
        turns - sum(int(uses[number].sum()) for uses in left_out)
        for number, turns in enumerate(plan.turns_before(positions))
    ]
    uses = _uses(plan, range(positions))
    for omitted in left_out:
        uses = [counts - fewer for counts, fewer in zip(uses, omitted, strict=True)]
    positions -= sum(map(len, skipped))
    sources = {}
    difference = 0
    for source, turns, counts in zip(plan.sources, planned, uses, strict=True):
        consumed = int(counts.sum()) if observed is None else observed.get(source.name, 0)
        difference += abs(turns - consumed) + abs(turns - int(counts.sum()))
        bytes_of_block = length * source.bytes / source.tokens
        sources[source.name] = {
            "planned_blocks": turns,
            "planned_tokens": turns * length,
            "planned_bytes": round(turns * bytes_of_block),
            "consumed_blocks": consumed,
            "consumed_tokens": consumed * length,
            "consumed_bytes": round(consumed * bytes_of_block),
            "difference_tokens": (turns - consumed) * length,
            "epochs": round(consumed / source.blocks, 6),
            "complete_epochs": int(counts.min()),
            "blocks": source.blocks,
            "blocks_never_seen": int((counts == 0).sum()),
            "wrapped_tokens": int(counts[-1]) * (source.blocks * length - source.tokens),
        }
    strangers = sum(count for name, count in (observed or {}).items() if name not in sources)
    return {
        "positions": positions,
        "planned_tokens": positions * length,
        "consumed_tokens": sum(int(entry["consumed_tokens"]) for entry in sources.values()) + strangers * length,
        "balance_tokens": (difference + strangers + abs(positions - sum(planned))) * length,
        "sources": sources,
    }


def _uses(plan: Plan, positions: range) -> list[Numbers]:
    """How often some consecutive places of the stream hold each block, per source."""
    uses = [np.zeros(source.blocks, dtype=np.int64) for source in plan.sources]
    for first in range(positions.start, positions.stop, _CHUNK):
        numbers, _, blocks = plan.at_many(first, min(first + _CHUNK, positions.stop))
        for number, counts in enumerate(uses):
            counts += np.bincount(blocks[numbers == number], minlength=len(counts))
    return uses
