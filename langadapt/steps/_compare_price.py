"""What a comparison of methods will cost."""

from collections.abc import Mapping, Sequence
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
    from langadapt.evaluate.segments import ScoringSet

# Start, loading the base, its tables and both tokenizers; hiding tokens and choosing segments: SmolLM2-135M, one core.
_START_SECONDS = 12.0
# Rows of the new tokens and of the hidden ones, tables of the new size, duplicates: for each method.
_METHOD_SECONDS = 1.0
# Bytes a token where nothing can be measured yet; the base needs more tokens for the same text.
_BYTES_PER_TOKEN = 3.0


def price(candidates: Sequence[Candidate], left: Sequence[LeftOut], manner: Manner, inputs: Inputs) -> Estimate:
    """Time of every method and of the base on both texts; memory of one model and what scoring takes beside it."""
    from langadapt.evaluate.price import LOAD_SECONDS, model_cost, window_bytes
    from langadapt.model.compute import matrix_rate
    from langadapt.model.facts import model_facts

    model, read = inputs["model"], 0
    texts, per_token = text_inputs(inputs), (_BYTES_PER_TOKEN, _BYTES_PER_TOKEN)
    if all(item.exists for item in texts.values()):
        sets = scoring_sets(inputs, manner, 0)
        read = sum(window_bytes(chosen, manner.context_bytes) for chosen in sets.values())
        per_token = _bytes_per_token(inputs, sets)
    else:
        read = manner.target_bytes + (manner.source_bytes if "source" in texts else 0)
    if not isinstance(model, Input):
        return Estimate()
    facts = model_facts(model.path) if model.exists else model.facts
    size = int(facts.get("parameters") or 0), int(facts.get("rows") or 0)
    rate, width = matrix_rate(manner.compute), int(facts.get("hidden_size") or 0)
    new_rows = _rows(inputs["tokenizer"], size[1])
    new_size = size[0] + (new_rows - size[1]) * width * (1 if facts.get("tied", True) else 2), new_rows
    cost: Cost = model_cost(size, per_token[0], read, manner.compute, rate)
    each: Cost = model_cost(new_size, per_token[1], read, manner.compute, rate)
    learned = learning_seconds([(item.method, item.options) for item in candidates], inputs)
    # the tables are there twice while a method's take the place of the last one's
    tables = 2 * size[1] * width * 4 * (1 if facts.get("tied", True) else 2)
    rows: list[tuple[str, str]] = [
        ("methods", ", ".join(item.name for item in candidates)),
        ("text scored", f"{show_bytes(read)}, by the base and with each of {len(candidates)} methods"),
    ]
    rows += [("left out", item.sentence) for item in left]
    rows += timed_rows(load())
    known: dict[str, Any] = {"methods": [item.name for item in candidates]}
    return Estimate(
        seconds=_START_SECONDS
        + learned
        + cost.seconds
        + (each.seconds - LOAD_SECONDS + _METHOD_SECONDS) * len(candidates),
        memory_bytes=cost.memory_bytes + tables,
        disk_bytes=1_000_000,
        facts=known,
        rows=tuple(rows),
        timed=True,
    )


def _bytes_per_token(inputs: Inputs, sets: "Mapping[str, ScoringSet]") -> tuple[float, float]:
    """What base and new tokenizer make of the texts that are scored, bytes a token."""
    from langadapt.model.load import load_any_tokenizer

    found = []
    for name in ("model", "tokenizer"):
        given = inputs[name]
        if not isinstance(given, Input) or not given.exists:
            found.append(_BYTES_PER_TOKEN)
            continue
        tokenizer = load_any_tokenizer(given.path)
        texts = [text.text for chosen in sets.values() for text in chosen.scored_texts(0)]
        tokens = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
        found.append(sum(len(text.encode()) for text in texts) / max(1, tokens))
    return found[0], found[1]


def _rows(tokenizer: object, otherwise: int) -> int:
    """Rows of the tables that the new tokenizer will have, as far as its artifact says it."""
    facts = tokenizer.facts if isinstance(tokenizer, Input) else {}
    return int(facts.get("new_rows") or facts.get("vocabulary_after") or otherwise)
