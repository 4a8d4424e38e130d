"""The report as Markdown: the same figures and sentences, for a terminal, a pull request or a model card."""

from collections.abc import Iterator, Sequence

from langadapt.report.collect import Content
from langadapt.report.page import number, signed, token_notes

_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_[]#|"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def plain(text: object) -> str:
    """Data as Markdown shows it literally, on one line."""
    return " ".join(str(text).split()).translate(_SPECIAL)


def render(content: Content) -> str:
    """The whole document; equal content gives equal bytes."""
    return "\n".join(_lines(content)).rstrip("\n") + "\n"


def _lines(content: Content) -> Iterator[str]:
    yield from (f"# {plain(content.title)}", "")
    for _, _, _, entry in content.sets:
        yield from (f"- {plain(text)}" for text in entry["sentences"])
    if "icl" in content.summary:
        yield f"- {plain(content.summary['icl']['sentence'])}"
    if content.warnings:
        yield from ("", "## Before you rely on this", "")
        yield from (f"- {plain(text)}" for text in content.warnings)
    yield from ("", "## Bits per byte", "")
    yield from _scores(content)
    yield from _tokens(content)
    yield from _samples(content)
    yield from ("", "## What it took", "")
    yield from (f"- {plain(name)}: {plain(value)}" for name, value in content.costs)
    if content.corpora:
        yield from ("", "## Text", "")
        rows = [
            [
                item["name"],
                item["lang"],
                f"{item['documents']:,}",
                item["size"],
                item["held_out"],
                "; ".join(item["dropped"]) or "nothing",
            ]
            for item in content.corpora
        ]
        yield from _table(["corpus", "language", "documents", "train text", "held out", "dropped, and why"], rows)
    yield from ("", "## Artifacts", "")
    rows = [[item["name"], item["what"], item["digest"]] for item in content.artifacts]
    yield from _table(["what", "", "SHA-256"], rows)
    yield from ("", "## Settings", "")
    yield from (f"- {plain(name)}: {plain(value)}" for name, value in content.settings)


def _scores(content: Content) -> Iterator[str]:
    models = ["base", "adapted", *(["control"] if content.has_control else [])]
    rows = []
    for _, language, name, entry in content.sets:
        bits = entry["bits_per_byte"]
        row = [
            language["name"],
            name,
            *(number(bits.get(model)) for model in models),
            f"{number(bits['uniform_base'], 1)}, {number(bits['uniform_adapted'], 1)}",
        ]
        for suffix in ("", "_control") if content.has_control else ("",):
            low, high = bits.get(f"delta{suffix}_low"), bits.get(f"delta{suffix}_high")
            row += [f"{signed(bits.get(f'delta{suffix}'))} ({signed(low)} to {signed(high)})"]
            row += [bits.get(f"verdict{suffix}") or "no score"]
        rows.append(row)
    columns = ["language", "set", *models, "guessing", "adapted − base (95 %)", "verdict"]
    columns += ["adapted − control (95 %)", "verdict"] if content.has_control else []
    yield from _table(columns, rows)


def _tokens(content: Content) -> Iterator[str]:
    yield from ("", "## Tokens", "")
    rows = [
        [language["name"], key.replace("_", " "), *(number(language[key].get(role), 2) for role in ("base", "adapted"))]
        for language in content.languages
        for key in ("tokens_per_word", "bytes_per_token")
        if language.get(key)
    ]
    yield from _table(["language", "", "base", "adapted"], rows)
    yield ""
    yield from (f"- {plain(text)}" for text in token_notes(content))
    for sample in content.splits:
        yield ""
        for who in ("base", "adapted"):
            parts = " ¦ ".join(plain(part) for part, _ in sample[who])
            yield f"- {who} ({sum(count for _, count in sample[who])} tokens): {parts}"


def _samples(content: Content) -> Iterator[str]:
    if content.continuations:
        yield from ("", "## What the models write", "")
    for sample in content.continuations:
        yield f"- prompt: {plain(sample['prompt'])} …"
        for who in ("base", "adapted", "control"):
            if who in sample:
                yield f"  - {who}: {plain(sample[who])}"
        yield f"  - the document: {plain(sample['actual'])}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(plain(cell) for cell in row) + " |"
