"""Tokenise corpora into shards and fix their order: blended by bytes, a function of seed and position.

Documents are packed without loss, each behind a separator token; the separator is chosen by measurement.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, sha256_file, write_durably, write_json_lines
from langadapt.core.progress import Task
from langadapt.core.types import Document, Estimate, Table
from langadapt.core.units import show_bytes
from langadapt.mixture.blend import Amount, check_shares, make_plan, replay_cap, source_facts
from langadapt.mixture.curriculum import Curriculum, curriculum_of, planned_tokens, words
from langadapt.mixture.passages import Passage, passages
from langadapt.mixture.separator import PASSAGE_BYTES, TOTAL_BYTES, given_separator, score_separators
from langadapt.mixture.shards import Selection, pack, select_documents
from langadapt.mixture.stream import PLAN, Stream
from langadapt.steps._mix_config import Config
from langadapt.steps._vocabulary import first_texts, size_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KIND = "data"
SCHEMA = 1

PROBE_BYTES = 4000
PROBE_SEGMENT_BYTES = 400
MAX_PROBES = 4


def check(config: Config) -> None:
    """ConfigError for names, shares and a course of replay that cannot be."""
    from langadapt.mixture.plan import NAME

    for name in [*config.corpora, *config.probes]:
        if not NAME.fullmatch(name):
            raise ConfigError(f"`{name}` cannot name a corpus: use letters, digits, `-` and `_`")
    both = sorted(config.corpora.keys() & config.probes.keys())
    if both:
        raise ConfigError(f"`{both[0]}` is both trained on and a probe", hint="give the probe another name")
    if config.block_tokens < 16:
        raise ConfigError(f"`block_tokens` is {config.block_tokens}; at least 16 tokens make a block")
    check_shares(config.corpora, config.replay)
    _curriculum(config)
    if isinstance(config.max_bytes, dict):
        for name in config.max_bytes:
            if name not in config.corpora:
                raise ConfigError(f"`max_bytes` names `{name}`, which is not among the corpora")


def run(config: Config, out: Output) -> Artifact:
    """Select, tokenise and pack every corpus, then write the plan and the probes."""
    from langadapt.corpus.store import documents
    from langadapt.model.facts import model_facts
    from langadapt.model.load import load_tokenizer

    model: Path = out.inputs["model"].path
    _check_model(config, model)
    for sentence in _same_text(config, out.inputs["corpora"]):
        out.progress.warn(sentence)
    tokenizer = load_tokenizer(model)
    rows = int(model_facts(model)["rows"])
    separator, scores = _separator(config, out, model, tokenizer, rows)
    amounts = {}
    for name, selection in _selections(config, out).items():
        task = out.progress.start(f"tokenise {name}", total=len(selection.order), unit="documents")
        packed = pack(
            out.folder / name,
            documents(out.inputs["corpora"][name].path, "train"),
            selection,
            _Encoder(tokenizer, task),
            separator=separator,
            vocabulary=rows,
        )
        task.finish()
        amounts[name] = Amount(packed.documents, selection.bytes, packed.tokens)
        if selection.documents_left_out:
            left = f"{selection.documents_left_out:,} documents, {show_bytes(selection.bytes_left_out)}"
            out.progress.note(f"{name}: {show_bytes(selection.bytes)} packed, {left} left out by `max_bytes`")
    plan = make_plan(
        amounts,
        config.replay,
        seed=config.seed,
        block_tokens=config.block_tokens,
        separator=separator,
        vocabulary=rows,
        curriculum=_curriculum(config),
    )
    write_durably(out.folder / PLAN, pretty_json(plan.to_json()))
    probe_bytes = _write_probes(config, out)
    # reading the first block back proves that plan, index and shards fit before anything is committed
    Stream.open(out.folder).block(0)
    langs = {name: _lang(name, source) for name, source in out.inputs["corpora"].items()}
    sources = source_facts(plan, langs, config.replay, _curriculum(config))
    facts: dict[str, Any] = {
        "vocabulary": rows,
        "tokenizer_digest": sha256_file(model / "tokenizer.json"),
        "block_tokens": config.block_tokens,
        "document_separator": separator,
        "separator_scores": scores,
        "probe_bytes": probe_bytes,
        "sources": sources,
    }
    if (curriculum := _curriculum(config)) is not None:
        facts["planned_tokens"] = planned = planned_tokens(plan, config.replay, curriculum)
        for name in sorted(config.replay):
            out.progress.note(f"{name}: {words(sources[name]['course'], planned)}")
    for name, entry in sources.items():
        shares = f"{entry['share_bytes']:.1%} of the bytes, {entry['share_tokens']:.1%} of the tokens"
        out.progress.note(f"{name} ({entry['role']}): {shares}, {entry['bytes_per_token']:.2f} bytes a token")
    return out.commit(facts)


def _curriculum(config: Config) -> Curriculum | None:
    return curriculum_of(config.replay_until, config.replay_after, config.planned_tokens, config.replay)


def _check_model(config: Config, model: Path) -> None:
    from langadapt.model.facts import check_positions
    from langadapt.model.kinds import require_causal

    require_causal(model, "`mix`")
    check_positions(model, config.block_tokens, "a block has", "give shorter blocks: --block-tokens {}")


def _same_text(config: Config, corpora: Mapping[str, Input]) -> list[str]:
    """What is wrong where two corpora hold the same text: it is a slip of the fingers, but harmless to the code."""
    held: dict[str, set[str]] = {}
    for name, source in corpora.items():
        made_from = source.artifact.manifest["inputs"].get("text") if source.artifact else None
        held[name] = {source.digest, *(made_from or ())} - {""}
    found = []
    for one, other in combinations(sorted(corpora, key=lambda name: (name in config.replay, name)), 2):
        if held[one] & held[other]:
            both = f"`{one}` and `{other}` are made from the same text"
            if (one in config.replay) == (other in config.replay):
                found.append(f"{both}: it is read twice as often as its share says")
            else:
                found.append(f"{both}: replaying the target's text keeps nothing of what the model knows")
    return found


def _read(out: Output, name: str) -> Iterator[Document]:
    from langadapt.corpus.store import documents

    source = out.inputs["corpora"][name]
    total = source.facts.get("documents")
    return out.progress.track(documents(source.path, "train"), f"read {name}", total=total, unit="documents")


def _selections(config: Config, out: Output) -> dict[str, Selection]:
    """Targets first, because the default cap of a replayed corpus depends on how much target text there is."""
    chosen: dict[str, Selection] = {}
    for name in sorted(config.corpora, key=lambda name: (name in config.replay, name)):
        cap = _cap(config, name, sum(chosen[other].bytes for other in chosen if other not in config.replay))
        chosen[name] = select_documents(_read(out, name), config.seed, cap)
        if not chosen[name].bytes:
            raise DataError(f"corpus `{name}` has no text", where=str(out.inputs["corpora"][name].given))
    return chosen


def _cap(config: Config, name: str, target_bytes: int) -> int | None:
    if isinstance(config.max_bytes, dict) and name in config.max_bytes:
        return config.max_bytes[name]
    if isinstance(config.max_bytes, int):
        return config.max_bytes
    return replay_cap(target_bytes, config.replay, name, _curriculum(config)) if name in config.replay else None


class _Encoder:
    """Batches of texts -> ids, with no special tokens added and none recognised in the text."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", task: Task) -> None:
        self._task = task
        # the same object that scoring uses, so that training and scoring see the same tokens
        self._backend = tokenizer.backend_tokenizer
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()

    def __call__(self, texts: list[str]) -> list[list[int]]:
        encoded = [item.ids for item in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        self._task.advance(len(texts))
        return encoded


def _separator(
    config: Config, out: Output, model: Path, tokenizer: "PreTrainedTokenizerBase", rows: int
) -> tuple[int, dict[str, float]]:
    """Id of the separator, and bits per byte of every candidate if there was a choice."""
    from langadapt.model.separator import candidates

    known = candidates(tokenizer)
    if config.document_separator != "auto":
        return given_separator(config.document_separator, tokenizer, known, rows), {}
    known = {token: number for token, number in known.items() if number < rows}
    if not known:
        raise ConfigError(
            "this tokenizer names no token that could stand between documents",
            hint="say which: -o document_separator=TOKEN",
        )
    if len(known) == 1:
        return next(iter(known.values())), {}
    scores = score_separators(model, tokenizer, known, _source_passages(config, out), out.progress)
    best = min(scores, key=lambda token: scores[token])
    shown = ", ".join(f"{token} {value:.3f}" for token, value in scores.items())
    out.progress.note(f"document separator: {best} (bits per byte on held-out text: {shown})")
    return known[best], scores


def _source_passages(config: Config, out: Output) -> list[Passage]:
    """Held-out text in languages the model knows: of replayed corpora, else of the targets."""
    from langadapt.corpus.store import documents

    for names in (sorted(config.replay), sorted(config.corpora)):
        found = []
        for name in names:
            held_out = documents(out.inputs["corpora"][name].path, "held-out")
            found += passages(held_out, TOTAL_BYTES // len(names), PASSAGE_BYTES)
        if found:
            return found
    raise DataError(
        "no corpus has held-out text to choose the document separator on",
        hint="say which to use: -o document_separator=TOKEN",
    )


def _write_probes(config: Config, out: Output) -> dict[str, int]:
    """Write probes.jsonl: targets, replayed and extra corpora, at most four in all; returns bytes by name."""
    from langadapt.corpus.store import documents

    sources: dict[str, Input] = {**out.inputs["corpora"], **(out.inputs["probes"] or {})}
    targets = [name for name in sorted(config.corpora) if name not in config.replay]
    wanted = [*targets[:1], *sorted(config.replay), *sorted(config.probes), *targets[1:]]
    if len(wanted) > MAX_PROBES:
        out.progress.warn(
            f"training will not watch {', '.join(wanted[MAX_PROBES:])}: at most {MAX_PROBES} probes, "
            "each costs time at every check"
        )
    lines, sizes = [], {}
    for name in wanted[:MAX_PROBES]:
        found = passages(documents(sources[name].path, "held-out"), PROBE_BYTES, PROBE_SEGMENT_BYTES)
        if not found:
            out.progress.warn(f"corpus `{name}` has no held-out text, so training cannot watch it")
            continue
        sizes[name] = sum(len(item.text.encode()) for item in found)
        lang = _lang(name, sources[name])
        lines += [{"name": name, "lang": lang, "id": item.id, "text": item.text} for item in found]
    write_json_lines(out.folder / "probes.jsonl", lines)
    return sizes


def _lang(name: str, source: Input) -> str:
    """The declared language; a plain file has none, so there a name such as `hu` is taken for it."""
    from langadapt.core.languages import normalise
    from langadapt.corpus.store import lang_of

    known = source.facts.get("lang") or (lang_of(source.path) if source.exists else None)
    if known:
        return str(known)
    try:
        return normalise(name)
    except ConfigError:
        return "und"


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Tokens from a sample where model and corpora exist, else from facts; shares and blocks by the rules of `run`."""
    from langadapt.mixture import price

    model, corpora = inputs["model"], inputs["corpora"]
    if not isinstance(model, Input) or not isinstance(corpora, dict):
        raise ConfigError("`mix` needs a model and corpora")
    if model.exists:
        _check_model(config, model.path)
    amounts: dict[str, Amount] = {}
    assumed, read = [], 0
    expected = model.facts.get("expected_bytes_per_token", {})
    for name in sorted(corpora, key=lambda name: (name in config.replay, name)):
        size = size_of(corpora[name])
        cap = _cap(config, name, sum(amounts[other].bytes for other in amounts if other not in config.replay))
        texts = list(first_texts(corpora[name])) if model.exists and corpora[name].exists else []
        sample = price.density(model.path, texts)
        if not texts and (rate := expected.get(_lang(name, corpora[name]))):
            sample = (float(rate), sample[1])
        elif not texts:
            assumed.append(name)
        amounts[name] = price.amount(min(size, cap or size), sample, size, corpora[name].facts.get("documents"))
        read += size
    vocabulary, parameters = _model_size(model)
    curriculum = _curriculum(config)
    plan = make_plan(
        amounts,
        config.replay,
        seed=config.seed,
        block_tokens=config.block_tokens,
        separator=0,
        vocabulary=vocabulary,
        curriculum=curriculum,
    )
    sources = source_facts(plan, {name: _lang(name, corpora[name]) for name in corpora}, config.replay, curriculum)
    rows = [
        (
            name,
            f"{entry['tokens']:,} tokens to draw from; of what is read {entry['share_bytes']:.1%} of bytes, "
            f"{entry['share_tokens']:.1%} of tokens",
        )
        for name, entry in sources.items()
    ]
    rows += [("same text", sentence) for sentence in _same_text(config, corpora)]
    if assumed:
        rows.append(("assumed", f"{price.ASSUMED_BYTES_PER_TOKEN} bytes a token for {', '.join(assumed)}"))
    facts: dict[str, object] = {"vocabulary": vocabulary, "block_tokens": config.block_tokens, "sources": sources}
    if curriculum is not None:
        facts["planned_tokens"] = planned = planned_tokens(plan, config.replay, curriculum)
        rows += [(f"{name}, course", words(sources[name]["course"], planned)) for name in sorted(config.replay)]
    return price.estimate(amounts, read, vocabulary, parameters * (config.document_separator == "auto"), facts, rows)


def _model_size(model: Input) -> tuple[int, int]:
    """Rows and parameters, from the facts of the step that will make the model or from its files."""
    from langadapt.model.facts import model_facts

    if {"rows", "parameters"} <= model.facts.keys():
        return int(model.facts["rows"]), int(model.facts["parameters"])
    if not model.exists:
        return 1 << 16, 0
    found = model_facts(model.path)
    return int(found["rows"]), int(found["parameters"])


def table(artifact: Artifact) -> Table:
    """What every source holds, and its part of the stream."""
    rows = []
    for name, entry in artifact.facts["sources"].items():
        cells: dict[str, Any] = entry
        rows.append(
            (
                name,
                cells["role"],
                f"{cells['documents']:,}",
                show_bytes(cells["bytes"]),
                f"{cells['tokens']:,}",
                f"{cells['bytes_per_token']:.2f}",
                f"{cells['share_bytes']:.1%}",
                f"{cells['share_tokens']:.1%}",
                f"{cells['blocks']:,}",
            )
        )
    scores = artifact.facts["separator_scores"]
    notes = [f"blocks of {artifact.facts['block_tokens']} tokens; separator id {artifact.facts['document_separator']}"]
    if scores:
        listed = ", ".join(f"{token} {value:.3f}" for token, value in sorted(scores.items(), key=lambda item: item[1]))
        notes.append(f"bits per byte of held-out text behind each candidate separator: {listed}")
    if planned := artifact.facts.get("planned_tokens"):
        replayed = [(name, each) for name, each in artifact.facts["sources"].items() if each["role"] == "replay"]
        notes += [f"{name}: {words(entry['course'], planned)}" for name, entry in replayed]
        notes.append("shares in the table are those of the planned tokens as a whole")
    columns = ("source", "role", "documents", "train text", "tokens", "bytes/token", "of bytes", "of tokens", "blocks")
    return Table("mixture", columns, tuple(rows), tuple(notes))
