"""What follows from a diagnosis: facts for the rules, advice, and the commands that carry it out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from langadapt.core.units import show_bytes

if TYPE_CHECKING:
    from langadapt.corpus.survey import Survey
    from langadapt.vocab.advice import Advice, Candidate, Facts


@dataclass(frozen=True)
class Diagnosis:
    """What was found, as plain values for `--json`; `advice` and `commands` are for people as well."""

    lang: str
    source: str
    text: dict[str, Any]
    models: tuple[dict[str, Any], ...]
    advice: tuple[dict[str, str], ...]
    commands: tuple[str, ...]
    instead: tuple[dict[str, str], ...] = ()
    """Other ways with the vocabulary of the chosen model: `verdict` and `command`."""

    def data(self) -> dict[str, Any]:
        """One object for --json."""
        return {"schema": "langadapt/diagnose/1"} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in self.__dict__.items()
        }


@dataclass(frozen=True)
class Subject:
    """The texts that all models are looked at with."""

    lang: str
    source: str
    place: Path
    source_place: Path | None
    target: "Survey"
    protected: "Survey | None"
    pairs: list[tuple[str, str]]
    budget_seconds: float | None


def facts_of(entry: dict[str, Any], subject: Subject) -> "Facts":
    """What the rules look at, from what was measured of one model."""
    from langadapt.vocab.advice import Facts

    target, source = entry["target"], entry["source"] or {}
    scored = entry.get("scores", {}).get("target", {})
    outlook = entry.get("outlook") or {}
    return Facts(
        model=entry["model"],
        lang=subject.lang,
        vocabulary=entry["vocabulary"],
        bytes_per_token=target["bytes_per_token"],
        text_bytes=subject.target.kept_bytes,
        tokens_per_word=target["tokens_per_word"],
        source_tokens_per_word=source.get("tokens_per_word"),
        parity=entry["parity"],
        hidden_share=target["hidden_bytes_share"],
        unspellable=tuple(entry["letters"]["unspellable"]),
        in_pieces=tuple(entry["letters"]["in_pieces"]),
        adds_letters=entry["family"] != "byte-bpe",
        altered=tuple(entry["altered_letters"]),
        tokens_in_script=entry["tokens_in_script"],
        refusal=entry["refusal"],
        bits=scored.get("bits_per_byte"),
        bits_error=scored.get("standard_error"),
        guessing_bits=scored.get("guessing"),
        ngram_bits=scored.get("ngrams"),
        training_tokens=outlook.get("tokens"),
        source=subject.source if subject.protected is not None else None,
        unscored=entry["kind"] and f"bits per byte are not defined for {entry['kind']}",
        parameters=entry["parameters"],
        row_parameters=entry["row_parameters"],
        used_rows=entry["used_rows"],
        trimmable=entry["refusal"] is None,
    )


def conclude(entries: list[dict[str, Any]], facts: list["Facts"], subject: Subject) -> Diagnosis:
    """Choose among the models, advise on each, and name the commands for the chosen one."""
    from langadapt.vocab.advice import advise_base, advise_instead, advise_vocabulary, advise_worth

    mixed = any(entry["kind"] is None for entry in entries)
    candidates = [_candidate(entry, fact, mixed) for entry, fact in zip(entries, facts, strict=True)]
    order: list[Advice] = advise_base(candidates)
    started = {item.verdict.removeprefix("start from ") for item in order}
    entry = next((item for item in entries if item["label"] in started), entries[0])
    chosen = facts[entries.index(entry)]
    lines: list[dict[str, str]] = [asdict(item) | {"model": ""} for item in order]
    for fact in facts:
        lines += [asdict(item) | {"model": fact.model} for item in (advise_worth(fact), *advise_vocabulary(fact))]
    text = {
        "bytes": subject.target.bytes,
        "bytes_known": subject.target.known,
        "kept_bytes": subject.target.kept_bytes,
        "documents": subject.target.documents,
        "marked_letters_share": round(subject.target.marked_share, 4),
        "lines_without_marks": subject.target.bare_lines,
        "lines_without_marks_by_chance": subject.target.chance_lines,
        "source_bytes": subject.protected.bytes if subject.protected is not None else None,
        "pairs": len(subject.pairs),
    }
    places = _places(chosen, subject.place, subject.source_place)
    commands = next_commands(entry, chosen, places, subject.place, subject.source_place)
    instead = tuple({"verdict": item.verdict, "command": item.command} for item in advise_instead(chosen, places))
    return Diagnosis(subject.lang, subject.source, text, tuple(entries), tuple(lines), commands, instead)


def _candidate(entry: dict[str, Any], facts: "Facts", mixed: bool) -> "Candidate":
    from langadapt.vocab.advice import Candidate

    scores, outlook = entry.get("scores", {}), entry["outlook"]
    usable = None
    if entry["kind"] is not None and mixed:
        usable = f"it is {entry['kind']}"
    elif facts.unspellable and (facts.altered or not facts.adds_letters):
        usable = "its tokenizer cannot write letters of the language"
    elif outlook is not None and outlook["strategy"] is None:
        usable = f"training it takes {show_bytes(outlook['memory_bytes'])} of memory"
    target = scores.get("target", {})
    return Candidate(
        model=entry["label"],
        bits=target.get("bits_per_byte"),
        passages=tuple((item["bits"], item["bytes"]) for item in entry.get("passages", ())),
        usable=usable,
        seconds_a_pass=outlook["seconds"] / outlook["epochs"] if outlook is not None else None,
    )


def _places(facts: "Facts", text: Path, source_text: Path | None) -> dict[str, str]:
    """Language -> its corpus, quoted: the given one, or where `prepare` will put it."""
    from langadapt.core.artifact import is_artifact

    given = [(facts.lang, text)] + ([(facts.source, source_text)] if facts.source and source_text else [])
    return {code: quote(str(place)) if is_artifact(place) else f"data/{code}" for code, place in given}


def next_commands(
    entry: dict[str, Any], facts: "Facts", places: dict[str, str], text: Path, source_text: Path | None
) -> tuple[str, ...]:
    """The chain that carries the advice out, word for word."""
    from langadapt.core.artifact import is_artifact
    from langadapt.vocab.advice import appended, extend_command

    lang, source = facts.lang, facts.source
    model = quote(facts.model)
    lines = [
        f"langadapt prepare {quote(str(place))} --lang {code} --out {places[code]}"
        for code, place in ((lang, text), (source, source_text))
        if code in places and place is not None and not is_artifact(place)
    ]
    size, start = appended(facts), model
    if size is not None:
        lines.append(extend_command(facts, size, places))
        start = "work/init"
        lines.append(f"langadapt init-embeddings {model} work/tokenizer --out {start}")
    if entry["kind"] is not None:
        return tuple(lines)  # training an encoder is for other tools
    replay = f" {source}={places[source]} --replay {source}=0.2" if source in places else ""
    lines.append(f"langadapt mix {start} {lang}={places[lang]}{replay} --out work/data")
    outlook = entry["outlook"] or {}
    strategy = outlook.get("strategy") or "embeddings"
    flags = f" --strategy {strategy}" if strategy != "full" else ""
    flags += f" --tokens {outlook['tokens']}" if outlook else ""
    lines.append(f"langadapt cpt {start} work/data --lang {lang}{flags} --out work/adapted")
    sets = f"--set target={places[lang]}" + (f" --set source={places[source]}" if source in places else "")
    lines.append(f"langadapt evaluate {model} work/adapted {sets} --out work/scores")
    return tuple(lines)
