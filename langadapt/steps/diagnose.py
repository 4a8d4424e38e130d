"""Is a model worth adapting to a language, and how? Looks at models and text, writes nothing.

This is no verb: there is nothing to keep. `langadapt diagnose` prints it, `langadapt.diagnose(...)` returns it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.languages import normalise
from langadapt.core.progress import Listener, Progress, ignore
from langadapt.core.units import parse_seconds, show_bytes
from langadapt.steps.diagnosis import Diagnosis, Subject, conclude, facts_of

if TYPE_CHECKING:
    from langadapt.corpus.survey import Survey
    from langadapt.evaluate.first_look import Look
    from langadapt.train.outlook import Outlook
    from langadapt.vocab.advice import Facts
    from langadapt.vocab.inspect import Cost

# Most seconds for the passages of one model, target and source together.
SCORE_SECONDS = 120.0


def diagnose(
    models: str | Path | Sequence[str | Path],
    *,
    lang: str,
    text: str | Path,
    parallel: str | Path | None = None,
    source: str = "en",
    source_text: str | Path | None = None,
    budget: str | int | None = None,
    score: bool = True,
    listener: Listener = ignore,
) -> Diagnosis:
    """Measure every model on the text, and say what to do, why, and with which commands.

    `models`: folders, .gguf files or hub ids; `text`: a file, a folder or a corpus artifact; `parallel`: lines
    `source<TAB>target`; `budget`: time for training, `8h` or seconds. `score=False` leaves the weights alone.
    """
    progress = Progress(listener)
    given = [str(item) for item in ([models] if isinstance(models, str | Path) else models)]
    if not given:
        raise ConfigError("diagnose needs a model", hint="name a folder, a .gguf file or a hub id")
    if len(set(given)) < len(given):
        raise ConfigError("one model is given twice")
    lang, source = normalise(lang), normalise(source)
    if lang == source:
        raise ConfigError(
            f"target and source are both `{lang}`", hint="name the language that the model knows: --source CODE"
        )
    seconds = _seconds(budget)
    folders = [_folder(name, progress) for name in given]
    subject = _subject(lang, source, Path(text), source_text, parallel, seconds, progress)
    entries = [_tokenizer(name, folder, subject, progress) for name, folder in zip(given, folders, strict=True)]
    for entry, label in zip(entries, _labels(given), strict=True):
        entry["label"] = label
    if score:
        for entry, folder in zip(entries, folders, strict=True):
            _score(entry, folder, subject, progress)
        _common(entries)
        _ngrams(entries, subject)
    facts = [facts_of(entry, subject) for entry in entries]
    for entry, fact in zip(entries, facts, strict=True):
        _outlook(entry, fact, subject)
    facts = [facts_of(entry, subject) for entry in entries]
    return conclude(entries, facts, subject)


def _labels(given: Sequence[str]) -> list[str]:
    """Short names for people: the last part of the path, where that tells the models apart."""
    short = [Path(name).name.removesuffix(".gguf") or name for name in given]
    return short if len(set(short)) == len(short) else list(given)


def _seconds(budget: str | int | None) -> float | None:
    try:
        value = parse_seconds(budget)
    except ValueError as error:
        raise ConfigError(f"budget: {error}") from error
    if isinstance(value, int | float) and value <= 0:
        raise ConfigError(f"the budget is {value:g} s; it should be above 0")
    return float(value) if isinstance(value, int | float) else None


def _folder(given: str, progress: Progress) -> Path:
    from langadapt.model.load import resolve

    folder = resolve(given, progress)
    if not folder.is_dir():
        raise DataError(f"`{given}` does not exist", hint="a model is a folder, a .gguf file or a hub id")
    return folder


def _subject(
    lang: str,
    source: str,
    text: Path,
    source_text: str | Path | None,
    parallel: str | Path | None,
    seconds: float | None,
    progress: Progress,
) -> Subject:
    from langadapt.corpus.langid import Detector
    from langadapt.corpus.lid_model import find_model
    from langadapt.corpus.parallel import read_pairs
    from langadapt.corpus.survey import check_language, mark_problem, own_language, survey

    pairs = read_pairs(Path(parallel), source, lang) if parallel is not None else []
    detector = find_model(None)

    def looked(place: Path, code: str) -> "Survey":
        found = survey(place, code, progress)
        judge = Detector(detector, code) if detector is not None else None
        for problem in (check_language(found.texts, code, judge, str(place)), mark_problem(found, code)):
            if problem:
                progress.warn(f"`{place}`: {problem}")
        return own_language(found, judge)

    target = looked(text, lang)
    protected = looked(Path(source_text), source) if source_text is not None else None
    return Subject(lang, source, text, Path(source_text) if source_text else None, target, protected, pairs, seconds)


def _tokenizer(name: str, folder: Path, subject: Subject, progress: Progress) -> dict[str, Any]:
    """What needs no weights: the tokenizer on the texts, the letters, and the rows of the table."""
    from langadapt.model.facts import model_facts, row_parameters
    from langadapt.model.kinds import not_causal
    from langadapt.model.load import load_tokenizer
    from langadapt.model.rows import unused_rows
    from langadapt.model.spelling import family_of
    from langadapt.vocab import inspect, tokenizer_file
    from langadapt.vocab.family import detect
    from langadapt.vocab.least_used import always_stay
    from langadapt.vocab.metrics import token_count, unspaced_script

    progress.note(f"looking at the tokenizer of {name}")
    tokenizer, file = load_tokenizer(folder), tokenizer_file.read(folder)
    entry: dict[str, Any] = {"model": name, "folder": str(folder), **model_facts(folder)}
    entry["vocabulary"] = len(tokenizer)
    entry["kind"] = not_causal(folder)
    entry["row_parameters"] = row_parameters(folder)
    entry["family"] = family_of(file.spec)
    try:
        detect(file)
        entry["refusal"] = None
    except DataError as error:
        entry["refusal"] = error.message.removeprefix("this tokenizer cannot be extended: ")
    for role, found in (("target", subject.target), ("source", subject.protected)):
        entry[role] = None
        if found is not None:
            texts = [document.text for document in found.halves()[0]]
            entry[role] = _figures(inspect.measure(tokenizer, texts), len(tokenizer), unspaced_script(texts))
    entry["parity"] = None
    if subject.pairs:
        before = token_count(tokenizer, [pair[0] for pair in subject.pairs])
        entry["parity"] = round(token_count(tokenizer, [pair[1] for pair in subject.pairs]) / max(before, 1), 4)
    tokens = inspect.token_bytes(tokenizer)
    letters = inspect.alphabet(subject.target.letters)
    lacking = inspect.letters_without_token(letters, tokens, inspect.can_spell(tokenizer))
    entry["letters"] = asdict(lacking)
    entry["altered_letters"] = [letter for letter in lacking.unspellable if inspect.is_altered(tokenizer, letter)]
    entry["script"] = inspect.main_script(subject.target.letters)
    entry["tokens_in_script"] = inspect.tokens_in_script(tokens, entry["script"])
    fixed = frozenset(always_stay(file)) if entry["refusal"] is None and "merges" not in file.model else frozenset()
    entry["used_rows"] = _used_rows(tokenizer, subject, fixed)
    rows = unused_rows(folder)
    entry["unused_rows"] = None if rows is None else asdict(rows)
    return entry


def _used_rows(tokenizer: Any, subject: Subject, fixed: frozenset[int]) -> int | None:
    """Tokens that all of the text is expected to use, target and source together; None for too little text.

    `fixed` are tokens that trim-vocab keeps without a use, such as the characters of a Unigram: they count as used.

    The number of different tokens grows with a power of the text (Heaps), taken from the two halves of the samples.
    For 8 MB of Hungarian and English with SmolLM2 it says a third too many: rather that than trimming what is needed.
    """
    from langadapt.vocab.inspect import ids_in

    parts = [found for found in (subject.target, subject.protected) if found is not None]
    halves = [set[int](), set[int]()]
    for found in parts:
        for seen, documents in zip(halves, found.halves(), strict=True):
            seen |= ids_in(tokenizer, [document.text for document in documents])
    half, both = len(halves[0]), len(halves[0] | halves[1])
    if not halves[1] or not half:
        return None
    grows = math.log2(both / half)
    more = max(found.bytes / max(1, sum(len(text.encode()) for text in found.texts)) for found in parts)
    expected: float = both * max(1.0, more) ** grows
    return min(len(tokenizer), round(expected) + len(fixed - halves[0] - halves[1]))


def _figures(cost: "Cost", vocabulary: int, unspaced: str | None) -> dict[str, Any]:
    import numpy as np

    from langadapt.vocab.usage import renyi_efficiency

    if cost.tokens == 0:
        raise DataError("the tokenizer makes no tokens of the text", hint="is it the tokenizer of this model?")
    words = None if unspaced or not cost.words else cost.words
    renyi = renyi_efficiency(np.fromiter(cost.counts.values(), np.int64), vocabulary)
    figures = {
        "tokens_per_word": None if words is None else cost.tokens / words,
        "bytes_per_token": cost.bytes / cost.tokens,
        "continued_words_share": None if words is None else cost.continued / words,
        "pieces_share": cost.pieces / cost.tokens,
        "unknown_share": cost.unknown / cost.tokens,
        "hidden_bytes_share": cost.hidden_bytes / cost.bytes,
        "changed_bytes_share": cost.changed_bytes / cost.bytes,
        "renyi_efficiency": renyi,
    }
    rounded: dict[str, Any] = {key: None if value is None else round(value, 4) for key, value in figures.items()}
    return rounded | {"unspaced_script": unspaced, "sample_bytes": cost.bytes}


def _score(entry: dict[str, Any], folder: Path, subject: Subject, progress: Progress) -> None:
    """Bits per byte of target and source passages, unless the weights do not fit into memory."""
    from langadapt.evaluate.first_look import PASSAGE_BYTES, TOTAL_BYTES, look
    from langadapt.mixture.passages import passages
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.model.load import load_tokenizer
    from langadapt.train.faster import free_memory

    if entry["kind"] is not None:
        entry["not_scored"] = f"bits per byte are not defined for {entry['kind']}"
        return
    device = choose_device()
    needed, free = 5 * int(entry["parameters"]), free_memory(device)
    if needed > free:
        entry["not_scored"] = f"needs {show_bytes(needed)} of memory, {show_bytes(free)} are free"
        progress.warn(f"{entry['model']} is not scored: {entry['not_scored']}")
        return
    texts = {}
    for role, found in (("target", subject.target), ("source", subject.protected)):
        if found is not None:
            chosen = passages(found.halves()[0], TOTAL_BYTES, PASSAGE_BYTES)
            texts[role] = [(passage.id, passage.text) for passage in chosen]
    entry["looks"] = look(
        folder,
        load_tokenizer(folder),
        texts,
        separator_from="source" if "source" in texts else "target",
        compute=resolve_compute("auto"),
        device=device,
        seconds=SCORE_SECONDS,
        progress=progress,
        name=Path(entry["model"]).name,
    )


def _common(entries: list[dict[str, Any]]) -> None:
    """Turn scores into figures over the passages that all models had time for."""
    for role in ("target", "source"):
        looks: list[tuple[dict[str, Any], Look]] = [
            (entry, entry["looks"][role]) for entry in entries if role in entry.get("looks", {})
        ]
        count = min((len(found.scores) for _, found in looks), default=0)
        for entry, found in looks:
            bits, error = found.bits(count), found.error(count)
            if bits != bits:
                raise DataError(f"`{entry['model']}` gives NaN on ordinary text: its weights are damaged")
            entry.setdefault("scores", {})[role] = {
                "bits_per_byte": round(bits, 4),
                "standard_error": round(error, 4) if error < float("inf") else None,
                "passages": count,
                "bytes": sum(score.bytes for score in found.scores[:count]),
                "guessing": round(_guessing(entry, role), 4),
                "prefix": found.prefix,
                "seconds": round(found.seconds, 1),
            }
            if role == "target":
                entry["passages"] = [
                    {"bits": round(score.nll / math.log(2), 3), "bytes": score.bytes} for score in found.scores[:count]
                ]
    for entry in entries:
        entry.pop("looks", None)


def _ngrams(entries: list[dict[str, Any]], subject: Subject) -> None:
    """What n-grams of the other half of the sample score on the passages that the models were scored on."""
    from langadapt.evaluate.first_look import PASSAGE_BYTES, TOTAL_BYTES
    from langadapt.evaluate.ngram import ngram_bits
    from langadapt.mixture.passages import passages

    scored = [entry["scores"]["target"] for entry in entries if "scores" in entry]
    if not scored:
        return
    first, second = subject.target.halves()
    chosen = passages(first, TOTAL_BYTES, PASSAGE_BYTES)[: scored[0]["passages"]]
    bits = ngram_bits((document.text for document in second), [passage.text for passage in chosen])
    for score in scored:
        score["ngrams"] = None if bits is None else round(bits, 4)


def _guessing(entry: dict[str, Any], role: str) -> float:
    """Bits per byte of a uniform guess over the vocabulary."""
    return math.log2(entry["vocabulary"]) / float(entry[role]["bytes_per_token"])


def _outlook(entry: dict[str, Any], facts: "Facts", subject: Subject) -> None:
    """What training would take with the vocabulary that is advised."""
    from langadapt.model.compute import busy_with, choose_device, resolve_compute
    from langadapt.train.outlook import look_ahead
    from langadapt.vocab.advice import appended

    entry["outlook"] = entry["outlook_problem"] = None
    if entry["kind"] is not None:
        entry["outlook_problem"] = f"`cpt` trains causal language models, this is {entry['kind']}"
        return
    size = appended(facts)
    saving = size.saving if size is not None else 0.0
    tokens = round(subject.target.kept_bytes / facts.bytes_per_token * (1 - saving))
    ahead = partial(look_ahead, entry, target_tokens=tokens, new_rows=size.tokens if size is not None else 0)
    device = choose_device()
    busy = busy_with(device)
    try:
        outlook: Outlook = ahead(budget_seconds=subject.budget_seconds, compute=resolve_compute("auto"), device=device)
    except (DataError, ConfigError) as error:
        entry["outlook_problem"] = error.message
        return
    tokens_added = size.tokens if size is not None else 0
    entry["outlook"] = asdict(outlook) | {"new_tokens": tokens_added, "saving": saving, "timed_while_busy": busy}
