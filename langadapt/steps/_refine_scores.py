"""Bits per byte before and after rows were refined, on held-out text: what changed, in words with an interval."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from langadapt.evaluate.segments import ScoringSet
    from langadapt.model.compute import Compute
    from langadapt.steps._refine_config import Config

BEFORE, AFTER = "base", "adapted"
_SAMPLES = 10_000


def sets_of(config: "Config", corpora: Mapping[str, Input]) -> "dict[str, ScoringSet]":
    """The held-out text of each corpus that is scored; a corpus without any is left out."""
    from langadapt.core.errors import DataError
    from langadapt.corpus.store import documents
    from langadapt.evaluate.segments import choose_segments

    found = {}
    for name, corpus in corpora.items():
        try:
            found[name] = choose_segments(
                documents(corpus.path, "held-out"),
                set_bytes=config.set_bytes,
                segment_bytes=config.segment_bytes,
                seed=config.seed,
                name=name,
            )
        except DataError:
            continue
    return found


def choose_prefix(asked: str, model: Input, tokenizer: Any, corpora: Mapping[str, Input], progress: Progress) -> str:
    """The token that opens each text: as asked, else the one behind which the model scores held-out text best."""
    from langadapt.corpus.store import documents
    from langadapt.mixture.passages import passages
    from langadapt.mixture.separator import PASSAGE_BYTES, TOTAL_BYTES, score_separators
    from langadapt.model.separator import candidates

    if asked != "auto":
        return asked
    known = candidates(tokenizer)
    if not known:
        raise ConfigError(
            "the tokenizer names no token that could stand before a text",
            hint="say which: `-o document_separator=TOKEN`",
        )
    # the language that the model knows tells best which token it was trained with
    corpus = corpora.get("source") or corpora["target"]
    texts = passages(documents(corpus.path, "held-out"), TOTAL_BYTES, PASSAGE_BYTES)
    if len(known) == 1 or not texts:
        return next(iter(known))
    values = score_separators(model.path, tokenizer, known, texts, progress)
    best = min(values, key=lambda token: values[token])
    progress.note(
        f"each text stands behind {best} ({', '.join(f'{name} {bits:.3f}' for name, bits in values.items())})"
    )
    return best


def score(
    role: str,
    folder: Path,
    sets: "Mapping[str, ScoringSet]",
    kept: Path,
    *,
    prefix: int,
    context_bytes: int,
    compute: "Compute",
    device: Any,
    progress: Progress,
) -> None:
    """Score one model on every set; what is finished lies in `kept` and is not done again."""
    from langadapt.evaluate.partial import Partial, to_rows
    from langadapt.model.load import load_model, load_tokenizer
    from langadapt.model.score import score_texts

    partial, model = Partial(kept), None
    for name, chosen in sets.items():
        if partial.has("scores", role, name):
            continue
        tokenizer = load_tokenizer(folder)
        model = model or load_model(folder).to(device)
        words = "before" if role == BEFORE else "after"
        bar = progress.start(f"bits per byte {words}, {name}", total=chosen.bytes, unit="bytes")
        texts = chosen.scored_texts(context_bytes)
        scores = score_texts(model, tokenizer, texts, prefix_id=prefix, compute=compute, progress=bar)
        bar.finish()
        partial.save_rows(role, name, to_rows(chosen, scores))


def compare(
    sets: "Mapping[str, ScoringSet]", langs: Mapping[str, str], rows: int, kept: Path, seed: int
) -> dict[str, dict[str, Any]]:
    """Figures and one sentence for each set: paired bootstrap over the same segments before and after."""
    from langadapt.core.languages import set_title
    from langadapt.evaluate.partial import Partial
    from langadapt.evaluate.summary import SetScores, summarise_set

    partial, found = Partial(kept), {}
    for name, chosen in sets.items():
        scored = {role: partial.load_rows(role, name) for role in (BEFORE, AFTER)}
        scores = SetScores(name, langs[name], chosen, scored, dict.fromkeys(scored, rows))
        entry = summarise_set(scores, samples=_SAMPLES, seed=seed)
        bits = entry["bits_per_byte"]
        figures = {
            "before": bits[BEFORE],
            "after": bits[AFTER],
            **{key: bits[key] for key in ("delta", "delta_low", "delta_high", "verdict")},
            "segments": entry["segments"],
            "bytes": entry["bytes"],
        }
        found[name] = {**figures, "sentence": _sentence(set_title(langs[name], name), figures)}
    return found


def _sentence(title: str, bits: Mapping[str, Any]) -> str:
    from langadapt.evaluate.verdict import signed

    if bits["before"] is None or bits["after"] is None:
        return f"{title}: no score, because a model gave no number."
    course = f"from {bits['before']:.3f} to {bits['after']:.3f} bits per byte"
    if bits["delta_low"] is None:
        return f"{title}: {course}; {bits['segments']} segments are too few for an interval, so nothing is claimed."
    interval = (
        f"difference {signed(bits['delta'])}, 95 % interval {signed(bits['delta_low'])} to {signed(bits['delta_high'])}"
    )
    return f"{title}: {bits['verdict']}, {course} ({interval})."
