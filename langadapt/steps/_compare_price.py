"""What a comparison of methods will cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langadapt.core.host import load, timed_rows
from langadapt.core.inputs import Input, Inputs
from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes
from langadapt.steps._compare_candidates import Candidate, LeftOut
from langadapt.steps._compare_text import Manner, scoring_sets, text_inputs
from langadapt.steps._init_given import learning_seconds

if TYPE_CHECKING:
    from langadapt.evaluate.price import Cost

# Start, loading the base, its tables and both tokenizers; hiding tokens and choosing segments: SmolLM2-135M, one core.
_START_SECONDS = 12.0
# Rows of the new tokens and of the hidden ones, tables of the new size, duplicates: for each method.
_METHOD_SECONDS = 3.0
# Bytes a token where nothing can be measured yet; the base needs more tokens for the same text.
_BYTES_PER_TOKEN = 3.0


def price(candidates: Sequence[Candidate], left: Sequence[LeftOut], manner: Manner, inputs: Inputs) -> Estimate:
    """Time of every method and of the base on both texts; memory of one model and what scoring takes beside it."""
    from langadapt.evaluate.price import model_cost, window_bytes
    from langadapt.model.compute import matrix_rate
    from langadapt.model.facts import model_facts

    model, read = inputs["model"], 0
    texts = text_inputs(inputs)
    if all(item.exists for item in texts.values()):
        sets = scoring_sets(inputs, manner, 0)
        read = sum(window_bytes(chosen, manner.context_bytes) for chosen in sets.values())
    else:
        read = manner.target_bytes + (manner.source_bytes if "source" in texts else 0)
    if not isinstance(model, Input):
        return Estimate()
    facts = model_facts(model.path) if model.exists else model.facts
    size = int(facts.get("parameters") or 0), int(facts.get("rows") or 0)
    cost: Cost = model_cost(size, _BYTES_PER_TOKEN, read, manner.compute, matrix_rate(manner.compute))
    learned = learning_seconds([(item.method, item.options) for item in candidates], inputs)
    # the tables are there twice while a method's take the place of the last one's
    tables = 2 * size[1] * int(facts.get("hidden_size") or 0) * 4 * (1 if facts.get("tied", True) else 2)
    rows: list[tuple[str, str]] = [
        ("methods", ", ".join(item.name for item in candidates)),
        ("text scored", f"{show_bytes(read)}, by the base and with each of {len(candidates)} methods"),
    ]
    rows += [("left out", item.sentence) for item in left]
    rows += timed_rows(load())
    known: dict[str, Any] = {"methods": [item.name for item in candidates]}
    return Estimate(
        seconds=_START_SECONDS + learned + cost.seconds + (cost.seconds + _METHOD_SECONDS) * len(candidates),
        memory_bytes=cost.memory_bytes + tables,
        disk_bytes=1_000_000,
        facts=known,
        rows=tuple(rows),
        timed=True,
    )
