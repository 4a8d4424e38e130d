"""What the methods are scored on: a little held-out text of either language, and the token before each piece of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from langadapt.evaluate.segments import ScoringSet
    from langadapt.model.compute import Compute

# Ten pieces of 300 bytes tell candidates for the separator apart: SmolLM2 loses 0.1 bits per byte with the wrong one.
_FEW = 10


@dataclass(frozen=True)
class Manner:
    """How much is scored, and how.

    Segments of 300 bytes without text before them: of 3 kB there are ten, enough for an interval, and nothing is read
    that does not count. Float32, so that machines agree.
    """

    target_bytes: int = 6000
    source_bytes: int = 3000
    segment_bytes: int = 300
    context_bytes: int = 0
    hidden_share: float = 0.05
    bootstrap_samples: int = 10_000
    compute: "Compute" = "fp32"
    document_separator: str = "auto"


@dataclass(frozen=True)
class Separators:
    """The token before each text, with its id in base and new tokenizer; two tokens where they share none."""

    base: str
    new: str
    base_id: int
    new_id: int


def text_inputs(given: Inputs) -> dict[str, Input]:
    """`target` and, if given, `source` text; ConfigError without a target."""
    found = {"target": given.get("corpus"), "source": given.get("source_text")}
    if found["target"] is None:
        raise ConfigError(
            "methods are compared on text in the new language", where="corpus", hint="give it: `--corpus CORPUS`"
        )
    return {name: item for name, item in found.items() if isinstance(item, Input)}


def scoring_sets(given: Inputs, manner: Manner, seed: int) -> dict[str, "ScoringSet"]:
    """Segments of the held-out part of each text; DataError if one has none."""
    from langadapt.corpus.store import documents
    from langadapt.evaluate.segments import MIN_SEGMENTS, choose_segments

    sizes = {"target": manner.target_bytes, "source": manner.source_bytes}
    texts = {name: list(documents(item.path, "held-out")) for name, item in text_inputs(given).items()}
    for name, item in text_inputs(given).items():
        if not texts[name]:
            raise DataError(
                f"nothing of `{item.given}` is held out, so there is no {name} text to score on",
                hint="hold some out: langadapt prepare TEXT --lang CODE --held-out-share 0.1 --out DIR",
            )
    return {
        name: choose_segments(
            found,
            set_bytes=sizes[name],
            segment_bytes=manner.segment_bytes,
            seed=seed,
            name=name,
            wanted=MIN_SEGMENTS,
        )
        for name, found in texts.items()
    }


def separators(
    wanted: str,
    base: "PreTrainedTokenizerBase",
    new: "PreTrainedTokenizerBase",
    model: Any,
    sets: Mapping[str, "ScoringSet"],
) -> Separators:
    """The token that was asked for, or of those that both tokenizers have the one behind which the base scores best.

    Measured on source text where there is some. Tokenizers that share none are each given the first of their own.
    """
    from langadapt.model.score import bits_per_byte, score_texts
    from langadapt.model.separator import candidates

    old_ids, new_ids = base.get_vocab(), new.get_vocab()
    if wanted != "auto":
        if wanted not in old_ids or wanted not in new_ids:
            raise ConfigError(
                f"base and new tokenizer do not both have the token `{wanted}`",
                where="document_separator",
                hint="leave it out: tokenizers that share no such token are each given their own",
            )
        return Separators(wanted, wanted, old_ids[wanted], new_ids[wanted])
    known = candidates(base)
    shared = [token for token in known if token in new_ids]
    if not shared:
        own = candidates(new)
        if not known or not own:
            raise ConfigError(
                "a tokenizer names no token that could stand before a document",
                hint="say which: -o document_separator=TOKEN",
            )
        first, second = next(iter(known)), next(iter(own))
        return Separators(first, second, known[first], own[second])
    best = shared[0]
    if len(shared) > 1:
        texts = sets.get("source", sets["target"]).scored_texts(0)[:_FEW]
        best = min(shared, key=lambda token: bits_per_byte(score_texts(model, base, texts, prefix_id=known[token])))
    return Separators(best, best, old_ids[best], new_ids[best])
