"""Results of vocab_families.py as markdown tables, written between two marks of a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables made by tests/benchmarks/vocab_families.py -->", "<!-- end of tables -->"
_LANGUAGES = {"hu": "Hungarian", "fi": "Finnish", "el": "Greek", "th": "Thai"}
_HEAD = (
    "| tokenizer | mode | new tokens | unreachable | guarded types changed | unseen English lines changed "
    "| lines of essays changed | bytes per token, unseen target | s | GB |"
)
# In refusals this much says why; the message has more.
_WHY = 90

Cell = tuple[str, str, str]
Results = Mapping[Cell, Mapping[str, Any]]


def fill(page: Path, results: Results, modes: Sequence[str]) -> None:
    """Replace what stands between the marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n{tables(results, modes)}{END}{after}", encoding="utf-8")


def tables(results: Results, modes: Sequence[str]) -> str:
    """One table a language, the reasons of refusals under it, and guarded beside free."""
    families = list(dict.fromkeys(family for family, _, _ in results))
    langs = list(dict.fromkeys(lang for _, _, lang in results))
    lines = []
    for lang in langs:
        lines += ["", f"### {_LANGUAGES.get(lang, lang)}", "", _HEAD, "|" + "---|" * 10]
        reasons: dict[str, None] = {}
        for family in families:
            for mode in modes:
                if found := results.get((family, mode, lang)):
                    lines.append(_row(family, mode, found))
                    if why := found.get("refused") or found.get("failed"):
                        reasons[f"{family}, {mode}: {_short(why)}"] = None
        if reasons:
            lines += ["", "`-`: refused.", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, *_beside_free(results, families, langs), ""])


def _row(family: str, mode: str, found: Mapping[str, Any]) -> str:
    if "seconds" not in found:
        return f"| {family} | {mode} | - | - | - | - | - | - | - | - |"
    cells = [
        family,
        mode,
        _count(found["added"]),
        _count(found["unreachable"]),
        _of(found["guarded_types_changed"], found["guarded_types"]),
        _share(found["lines_changed"], found["lines"]),
        _share(found["other_lines_changed"], found["other_lines"]),
        " -> ".join(_per_token(found, side) for side in ("base", "adapted")),
        f"{found['seconds']:.0f}",
        f"{found['memory'] / 1e9:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _count(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _of(part: int | None, whole: int) -> str:
    return "n/a" if part is None else f"{part:,} of {whole:,}"


def _share(part: int, whole: int) -> str:
    return "0" if part == 0 else f"{100 * part / whole:.1f} %"


def _per_token(found: Mapping[str, Any], side: str) -> str:
    tokens, unknown = found["tokens"][side], found["unknown"][side]
    rest = f" ({100 * unknown / tokens:.1f} % unknown)" if unknown >= 0.0005 * tokens else ""
    return f"{found['target_bytes'] / tokens:.2f}{rest}"


def _short(why: str) -> str:
    first = why.splitlines()[0]
    return first if len(first) <= _WHY else first[: _WHY - 3].rstrip() + "..."


def _beside_free(results: Results, families: Sequence[str], langs: Sequence[str]) -> list[str]:
    """Tokens of unseen target text with the guard, as a share of those without."""
    rows = []
    for family in families:
        for lang in langs:
            cells = [results.get((family, mode, lang), {}) for mode in ("append", "append-unguarded", "append-free")]
            if all("seconds" in cell for cell in cells):
                guarded, unguarded, free = (cell["tokens"]["adapted"] for cell in cells)
                rows.append(f"| {family} | {lang} | {free:,} | {_more(unguarded, free)} | {_more(guarded, free)} |")
    if not rows:
        return []
    head = "| tokenizer | language | tokens, nothing guarded | only markup, numbers, chat | English guarded |"
    return ["", "### What the guard costs", "", head, "|---|---|---|---|---|", *rows]


def _more(tokens: int, free: int) -> str:
    return f"{tokens:,} ({100 * (tokens / free - 1):+.1f} %)"
