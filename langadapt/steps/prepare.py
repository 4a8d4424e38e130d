"""Turn text files into a corpus: read, normalise, check the language, drop duplicates, hold out a part.

Nothing disappears silently: every text that is not in the corpus is in `dropped.jsonl.gz` with its reason, and the
counts are in the manifest. The result does not depend on the order of the files.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from langadapt.core.artifact import Artifact, Output, is_artifact
from langadapt.core.config import Flag, Reads, StepConfig, TextInput
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.languages import Lang
from langadapt.core.progress import Progress
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, show_bytes
from langadapt.corpus.arrange import NearDuplicates, Plan, Written, write
from langadapt.corpus.boilerplate import LineCounts
from langadapt.corpus.collect import Collector, Rules
from langadapt.corpus.dedup import PART
from langadapt.corpus.detector import check_language, choose_detector
from langadapt.corpus.files import plain_name, text_files
from langadapt.corpus.filters import min_characters
from langadapt.corpus.langid import Judge, accepted_labels
from langadapt.corpus.read import FileReader, ReadSettings
from langadapt.corpus.sample import Sample, sample
from langadapt.corpus.spool import Spool
from langadapt.corpus.store import HELD_OUT_SHARE
from langadapt.corpus.tally import Tally

KIND = "corpus"
SCHEMA = 1

# Below this an evaluation cannot tell small changes from noise: 30 kB are about 50 segments of 600 bytes.
LEAST_HELD_OUT_BYTES = 30_000
# CPU seconds for a MB of text: without a detector, with many lines judged at once, and one by one; and for a document.
# Measured on a busy machine with 30 MB in documents of 1.2 kB and 8 MB in lines of 94 bytes.
STARTING, PLAIN, TOGETHER, ONE_BY_ONE, PER_DOCUMENT = 0.6, 0.11, 0.19, 0.33, 16e-6
# Peaks of 1 and 4 million documents of a line. What is sorted at once (at most `PART` documents) costs more, and so
# does the table of a detector that judges many lines at once. Lines that are counted: see `LineCounts`.
BASE_BYTES, TABLE_BYTES, BYTES_PER_DOCUMENT, BYTES_SORTING = 60_000_000, 35_000_000, 14, 60


class Config(StepConfig):
    """What `prepare` takes."""

    text: tuple[TextInput, ...]
    """UTF-8 text, JSON lines, CSV, TSV, CoNLL-U (also .gz, .zst), Parquet; folders of them; hub ids org/name:split."""
    lang: Annotated[Lang, Flag()]
    """Language of the text: a BCP 47 or ISO 639 code."""
    documents: Annotated[Literal["auto", "line", "blank-line", "file"], Flag()] = "auto"
    """What one document is in a plain text file; auto: separated by blank lines if there are any, else one a line."""
    text_field: Annotated[str, Flag(), Field(min_length=1)] = "text"
    """Field of a JSON line or column of a table that holds the text; in CSV without a row of names its number."""
    lang_field: Annotated[str, Field(min_length=1)] | None = None
    """Field or column with a language code; documents that it says are in another language are dropped."""
    csv_quotes: bool = True
    """Do quotation marks enclose fields of CSV and TSV? If not they are plain characters."""
    held_out_share: Annotated[float, Flag(), Field(ge=0, le=1)] = HELD_OUT_SHARE
    """Share of documents kept apart for evaluation; 1 makes a corpus for evaluation only."""
    min_characters: Annotated[int, Field(ge=1)] = 20
    """Shorter documents are dropped."""
    max_bytes: Annotated[Annotated[Bytes, Field(gt=0)] | None, Flag()] = None
    """At most this much text, train and held-out together; which documents stay is decided by their content."""
    near_duplicates: Annotated[NearDuplicates, Flag()] = "drop"
    """Documents that share most of their word 5-grams: drop all but the longest, mark them and keep all, or off."""
    boilerplate: Annotated[Literal["drop", "keep"], Flag()] = "drop"
    """Lines that stand in more than 1 % of the documents, at least 4: drop all but the first of each, or keep."""
    min_lang_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Documents less likely than this to be in the language are dropped, if the detector knows the language and is sure
    of another one; 0 drops none."""
    lid_model: Annotated[str, Reads((), plain=True, flag_only=True)] | None = None
    """fastText language identification model; default: the one that is found on this machine."""
    lid_seed: dict[str, Annotated[str, Reads((), plain=True, flag_only=True)]] = Field(default_factory=dict)
    """Text in this language and in its neighbours, CODE=FILE each, where no model knows it: told apart by letters."""
    accept_langs: tuple[Lang, ...] = ()
    """Languages that are as good as this one: siblings that a detector mixes up, such as nb and nn."""
    min_lang_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Stop when less than this share of the text is in the language; 0 never stops."""
    on_bad: Annotated[Literal["stop", "skip", "replace"], Flag()] = "skip"
    """What to do at a line or row that cannot be read; replace keeps it, with U+FFFD for what is not UTF-8."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Stop when more than this share of a file's lines cannot be read (one bad line in a small file is not enough)."""


def run(config: Config, out: Output) -> Artifact:
    """Make a corpus artifact. DataError if nothing is left, naming the filter that took most."""
    files = _files(cast(tuple[Input, ...], out.inputs["text"]))
    detector = _detector(config, out.inputs, out.progress)
    tally = Tally()
    rules_used: dict[str, int] = {}
    with tempfile.TemporaryFile(dir=out.folder) as spooled:
        spool = Spool(spooled, tally, out.folder)
        collector = Collector(_rules(config, detector), spool)
        task = out.progress.start("reading text", total=sum(file.stat().st_size for file in files), unit="bytes")
        for file in files:
            reader = FileReader(file, _settings(config))
            collector.read(reader, task)
            rules_used[reader.rule] = rules_used.get(reader.rule, 0) + 1
        task.finish()
        found = len(spool)
        written = write(spool, out.folder, _plan(config), out.progress)
    _say_rules(rules_used, out.progress)
    looks = ", ".join(f"{label} {share:.0%}" for label, share in list(_shares(collector.detected).items())[:3])
    check_language(config.lang, collector, config.min_lang_share, looks, out.progress)
    _check_not_empty(config, written, tally, found, files)
    _warn(config, written, collector, out.progress)
    out.progress.note(_said(written, tally))
    return out.commit(
        {
            "lang": config.lang,
            "documents": written.documents,
            "bytes": written.bytes,
            "words": written.words,
            "held_out_documents": written.held_out_documents,
            "held_out_bytes": written.held_out_bytes,
            "dropped": tally.dropped(),
            "changed": dict(sorted(tally.changed.items())),
            "first_place": dict(sorted(tally.where.items())),
            "detected": _shares(collector.detected),
            "near_duplicates": {
                "clusters": written.clusters,
                "documents": written.clustered,
                "largest": written.largest,
            },
            "boilerplate": written.boilerplate.samples(),
            "detector": None if detector is None else {"name": detector.name, "sha256": detector.digest},
            "document_rule": dict(sorted(rules_used.items())),
        }
    )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price and predicted facts, from file sizes and a sample of the text."""
    given = cast(tuple[Input, ...], inputs["text"])
    if not all(item.exists for item in given):
        return Estimate(facts={"lang": config.lang}, rows=(("text given", "not there yet"),))
    rules = _rules(config, _detector(config, inputs, Progress()))
    part = sample(_files(given), _settings(config), rules)
    kept = part.bytes if config.max_bytes is None else min(part.bytes, config.max_bytes)
    scale = kept / part.bytes if part.bytes else 0.0
    train = 1 - config.held_out_share
    facts: dict[str, object] = {
        "lang": config.lang,
        "documents": round(part.documents * scale * train),
        "bytes": round(kept * train),
        "words": round(part.words * scale * train),
        "held_out_documents": round(part.documents * scale * config.held_out_share),
        "held_out_bytes": round(kept * config.held_out_share),
    }
    problems = () if kept else ("the filters would drop all of the text that was looked at",)
    return Estimate(
        seconds=_seconds(part, rules.detector),
        memory_bytes=_memory_bytes(config, part, rules.detector),
        # spool and result live side by side for a moment; gzip makes text about three times smaller
        disk_bytes=round(part.raw_bytes * 1.4),
        facts=facts,
        rows=(
            ("text given", f"{show_bytes(part.raw_bytes)} in {part.files:,} {'file' if part.files == 1 else 'files'}"),
            ("kept: train", f"about {show_bytes(kept * train)} in {facts['documents']:,} documents"),
            ("kept: held out", f"about {show_bytes(kept * config.held_out_share)}"),
        ),
        problems=problems,
    )


def _seconds(part: Sample, detector: Judge | None) -> float:
    rate = PLAIN if detector is None else TOGETHER if detector.together else ONE_BY_ONE
    return STARTING + rate * part.raw_bytes / 1e6 + PER_DOCUMENT * part.documents


def _memory_bytes(config: Config, part: Sample, detector: Judge | None) -> int:
    lines = LineCounts.memory_bytes(part.lines) if config.boilerplate == "drop" else 0
    documents = BYTES_PER_DOCUMENT * part.documents + BYTES_SORTING * min(part.documents, PART)
    table = TABLE_BYTES if detector is not None and detector.together else 0
    return BASE_BYTES + table + documents + lines


def table(artifact: Artifact) -> Table:
    """What the text became: what is in the corpus, and what was dropped by reason; shares are of all bytes."""
    facts = artifact.facts
    parts = [
        ("kept: train", facts["documents"], facts["bytes"]),
        ("kept: held out", facts["held_out_documents"], facts["held_out_bytes"]),
    ]
    dropped = sorted(facts["dropped"].items(), key=lambda item: (-item[1]["bytes"], item[0]))
    parts += [(f"dropped: {reason}", counts["documents"], counts["bytes"]) for reason, counts in dropped]
    total = sum(size for _, _, size in parts)
    rows = [
        # lines out of documents that stay are no documents
        (name, f"{documents:,}" if documents or name.startswith("kept") else "-", show_bytes(size),
         f"{size / max(1, total):.1%}")
        for name, documents, size in parts
    ]  # fmt: skip
    looks = ", ".join(f"{lang} {share:.1%}" for lang, share in list(facts["detected"].items())[:4])
    notes = [f"the text looks like: {looks}"] if looks else []
    near = facts["near_duplicates"]
    if near["clusters"]:
        notes.append(
            f"{near['documents']:,} documents are near-duplicates, in {near['clusters']:,} clusters of up to "
            f"{near['largest']:,}"
        )
    notes += [f"boilerplate: {line}" for line in facts["boilerplate"][:3]]
    if dropped:
        notes.append("each text that was dropped is in `dropped.jsonl.gz`, with its place")
    return Table(f"corpus ({facts['lang']})", ("part", "documents", "text", "share"), tuple(rows), tuple(notes))


def _files(given: Sequence[Input]) -> list[Path]:
    files: list[Path] = []
    for item in given:
        if is_artifact(item.path):
            raise DataError(f"`{item.given}` is an artifact already", hint="give the text it was made from")
        files += text_files(item.path)
    # by name, so that the same files in another order give the same reports
    return sorted(set(files), key=lambda file: (plain_name(file), str(file)))


def _settings(config: Config) -> ReadSettings:
    return ReadSettings(
        documents=config.documents,
        text_field=config.text_field,
        lang_field=config.lang_field,
        csv_quotes=config.csv_quotes,
        on_bad=config.on_bad,
        max_bad_share=config.max_bad_share,
        lang=config.lang,
        accepted=accepted_labels(config.lang, config.accept_langs),
    )


def _rules(config: Config, detector: Judge | None) -> Rules:
    filters = (min_characters(config.min_characters),)
    return Rules(config.lang, filters, detector, config.min_lang_probability)


def _plan(config: Config) -> Plan:
    return Plan(
        config.held_out_share,
        config.max_bytes,
        config.near_duplicates,
        config.boilerplate == "drop",
        (min_characters(config.min_characters),),
    )


def _detector(config: Config, inputs: Inputs, progress: Progress) -> Judge | None:
    if config.min_lang_probability == 0:
        return None
    model, seeds = inputs.get("lid_model"), inputs.get("lid_seed")
    found = {label: text_files(item.path) for label, item in seeds.items()} if isinstance(seeds, dict) else {}
    path = model.path if isinstance(model, Input) else None
    return choose_detector(config.lang, config.accept_langs, path, found, progress)


def _say_rules(rules: dict[str, int], progress: Progress) -> None:
    words = {
        "line": "every line is a document",
        "blank-line": "blank lines separate documents",
        "file": "every file is a document",
        "json-line": "every JSON line is a document",
        "row": "every row is a document",
        "conllu-document": "`# newdoc` separates documents, without it every sentence is one",
    }
    for rule, count in sorted(rules.items()):
        progress.note(f"{words[rule]} ({count:,} {'file' if count == 1 else 'files'})")


def _said(written: Written, tally: Tally) -> str:
    """What was kept and dropped in one sentence: also in a pipe and in the log of a recipe."""
    documents, size = written.documents + written.held_out_documents, written.bytes + written.held_out_bytes
    lost = sorted(tally.dropped().items(), key=lambda item: (-item[1]["bytes"], item[0]))
    reasons = ", ".join(
        f"{reason} {show_bytes(counts['bytes'])}"
        + (f" ({counts['documents']:,} documents)" if counts["documents"] else "")
        for reason, counts in lost
    )
    return f"kept {documents:,} documents with {show_bytes(size)}; dropped: {reasons or 'nothing'}"


def _check_not_empty(config: Config, written: Written, tally: Tally, found: int, files: Sequence[Path]) -> None:
    if written.documents or (written.held_out_documents and config.held_out_share == 1):
        return
    names = ", ".join(f"`{file}`" for file in files[:3]) + (" ..." if len(files) > 3 else "")
    if written.held_out_documents:
        raise DataError(
            f"all {written.held_out_documents:,} documents of {names} fell into the held-out part",
            hint="give more text, say what a document is (--documents line), or --held-out-share 0",
        )
    reason = tally.worst()
    if reason is None:
        raise DataError(f"{names} {'hold' if len(files) > 1 else 'holds'} no text")
    hints: dict[str, str] = {
        "too-short": "-o min_characters=1 keeps short texts; --documents blank-line makes longer ones",
        "other-language": f"is it really `{config.lang}`? -o min_lang_probability=0 keeps everything",
        "over-max-bytes": "raise --max-bytes",
    }
    raise DataError(
        f"nothing is left of {found:,} texts in {names}: `{reason}` took most, "
        f"{tally.documents[reason]:,} texts with {show_bytes(tally.bytes[reason])}",
        where=tally.where.get(reason) or None,
        hint=hints.get(reason),
    )


def _warn(config: Config, written: Written, collector: Collector, progress: Progress) -> None:
    total = written.bytes + written.held_out_bytes
    if 0 < config.held_out_share < 1 and written.held_out_bytes < LEAST_HELD_OUT_BYTES:
        share = min(0.5, max(config.held_out_share, 1.2 * LEAST_HELD_OUT_BYTES / max(1, total)))
        progress.warn(
            f"only {show_bytes(written.held_out_bytes)} are held out; under {show_bytes(LEAST_HELD_OUT_BYTES)} small "
            f"changes cannot be told from noise (try --held-out-share {share:.2g})"
        )
    bad = {"invalid-utf8": "not UTF-8", "line-too-long": "too long"}
    for reason, words in bad.items():
        if reason in collector.spool.tally.documents:
            count, place = collector.spool.tally.documents[reason], collector.spool.tally.where[reason]
            progress.warn(f"{count:,} lines were left out because they are {words}; the first: {place}")


def _shares(counts: dict[str, int]) -> dict[str, float]:
    """Shares of labels, the largest first; what is under one in a thousand is summed as `other`."""
    total = sum(counts.values())
    large = {label: size for label, size in counts.items() if size >= 0.001 * total}
    shares: dict[str, Any] = {
        label: round(size / total, 4) for label, size in sorted(large.items(), key=lambda item: (-item[1], item[0]))
    }
    rest = total - sum(large.values())
    return shares | ({"other": round(rest / total, 4)} if rest else {})
