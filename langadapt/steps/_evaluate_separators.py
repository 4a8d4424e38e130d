"""Which token stands before each document when models are scored: one for all if they share one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def separators(given: str, out: Output, roles: list[str], source_sets: list[str]) -> dict[str, str]:
    """Role -> token, as text. `given` is the setting, `source_sets` name the text that a choice is measured on.

    The token that the adapted model was trained with; else the candidate behind which the base scores the text best,
    among those that all models have. A model without that token gets its own: the one it was trained with, or the
    best of its own candidates. ConfigError: a token that was given is not in all models, or a model has no candidate.
    """
    from langadapt.model.load import load_tokenizer
    from langadapt.model.separator import candidates

    tokenizers = {role: load_tokenizer(out.inputs[role].path) for role in roles}
    if given != "auto":
        _insist(given, tokenizers)
        return dict.fromkeys(roles, given)
    known = {role: candidates(tokenizer) for role, tokenizer in tokenizers.items()}
    chosen = _trained(out.inputs["adapted"], tokenizers["adapted"])
    if chosen is None:
        shared = {
            token: id
            for token, id in known["base"].items()
            if all(token in tokenizer.get_vocab() for tokenizer in tokenizers.values())
        }
        chosen = _best("base", shared or known["base"], tokenizers["base"], out, source_sets)
    found = {}
    for role, tokenizer in tokenizers.items():
        if chosen in tokenizer.get_vocab():
            found[role] = chosen
        else:
            own = _trained(out.inputs[role], tokenizer)
            found[role] = own or _best(role, known[role], tokenizer, out, source_sets)
    if len(set(found.values())) > 1:
        out.progress.note(
            f"the models share no token that can stand before a document, so each has its own: {show(found)}; "
            "text and context are the same bytes for all"
        )
    return found


def show(found: Mapping[str, str]) -> str:
    """The token that all share, or `<s>` (base), `</s>` (adapted)."""
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{token} ({role})" for role, token in found.items())


def _insist(given: str, tokenizers: Mapping[str, "PreTrainedTokenizerBase"]) -> None:
    for role, tokenizer in tokenizers.items():
        if given not in tokenizer.get_vocab():
            raise ConfigError(
                f"the {role} model has no token `{given}` to put before documents",
                hint="leave document_separator out: models that share no such token are each given their own",
            )


def _trained(source: Input, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The separator that a model was trained with, if that is recorded."""
    id = source.facts.get("document_separator")
    return str(tokenizer.convert_ids_to_tokens(id)) if isinstance(id, int) else None


def _best(
    role: str, known: Mapping[str, int], tokenizer: "PreTrainedTokenizerBase", out: Output, source_sets: list[str]
) -> str:
    """The candidate behind which this model scores held-out text best."""
    from langadapt.corpus.store import documents
    from langadapt.mixture.passages import passages
    from langadapt.mixture.separator import PASSAGE_BYTES, TOTAL_BYTES, score_separators

    if not known:
        raise ConfigError(
            f"the {role} tokenizer names no token that could stand before a document",
            hint="say which: -o document_separator=TOKEN",
        )
    if len(known) == 1:
        return next(iter(known))
    sources: Any = out.inputs["sets"]
    found = []
    for name in source_sets:
        found += passages(documents(sources[name].path, "held-out"), TOTAL_BYTES // len(source_sets), PASSAGE_BYTES)
    values = score_separators(out.inputs[role].path, tokenizer, known, found, out.progress)
    best = min(values, key=lambda token: values[token])
    shown = ", ".join(f"{token} {value:.3f}" for token, value in values.items())
    out.progress.note(f"document separator: {best} (bits per byte with the {role} model: {shown})")
    return best
