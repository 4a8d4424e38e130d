"""The report as one HTML page that loads nothing and runs nothing; all data is escaped by the template engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from langadapt.core.languages import set_title
from langadapt.core.units import show_bytes
from langadapt.report import charts
from langadapt.report.collect import Content

_ROLES = ("base", "adapted", "control")


@dataclass(frozen=True)
class View:
    """What the template needs beyond the content: texts of cells and drawings."""

    cards: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    control_rows: list[dict[str, Any]]
    dots_axis: Markup
    changes: Callable[[str, Sequence[dict[str, Any]], str], Markup]
    bars: list[dict[str, Any]]
    token_notes: list[str]
    size_chart: Markup
    size_notes: list[str]
    loss_chart: Markup
    probe_chart: Markup
    cap: str


def render(content: Content) -> str:
    """The whole page; equal content gives equal bytes."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["one_line"] = one_line
    # the style sheet is ours, not data, and must not be escaped
    css = Markup(_source("page.css"))
    view = _view(content, environment)
    return environment.get_template("page.html.jinja").render(content=content, view=view, css=css)


def _source(name: str) -> str:
    return files("langadapt.report").joinpath(name).read_text(encoding="utf-8")


def one_line(text: str) -> str:
    """Line breaks as a sign: a model that writes nothing else would fill the page."""
    return " ⏎ ".join(line.strip() for line in text.splitlines() if line.strip())


def number(value: float | None, digits: int = 3) -> str:
    """A figure with a real minus sign; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def tone(verdict: str | None) -> str:
    """CSS class of a verdict."""
    return verdict if verdict in ("better", "worse") else "none"


def _view(content: Content, environment: Environment) -> View:
    changes = {suffix: _change_scale(content, suffix) for suffix in ("", "_control")}
    null = [entry["bits_per_byte"]["uniform_adapted"] for _, _, _, entry in content.sets]
    known = [entry["bits_per_byte"].get(role) or 0.0 for _, _, _, entry in content.sets for role in _ROLES]
    dots = charts.Scale(0.0, max([*null, *known, 0.1]) * 1.04)

    def table(title: str, rows: Sequence[dict[str, Any]], suffix: str) -> Markup:
        scale = changes[suffix]
        axis = charts.axis(scale, charts.nice_ticks(scale.low, scale.high, 6), " %")
        return Markup(environment.get_template("changes.html.jinja").render(title=title, rows=rows, axis=axis))

    return View(
        cards=[_card(language, name, entry) for _, language, name, entry in content.sets],
        rows=_rows(content, dots, changes[""], ""),
        control_rows=_rows(content, dots, changes["_control"], "_control") if content.has_control else [],
        dots_axis=charts.axis(dots, charts.nice_ticks(dots.low, dots.high, 5)),
        changes=table,
        bars=_bars(content),
        token_notes=token_notes(content),
        size_chart=charts.line_chart(
            {"bytes per token": content.sizes} if len(content.sizes) > 1 else {},
            x_label="new tokens",
            y_label="bytes per token, training words",
            mark=content.tokenizer.get("added"),
        ),
        size_notes=size_notes(content),
        loss_chart=charts.line_chart(
            {"loss": content.losses} if content.losses else {},
            x_label="tokens read",
            y_label="loss, nats a token",
            smooth=True,
        ),
        probe_chart=charts.line_chart(content.probes, x_label="tokens read", y_label="probes, bits per byte"),
        cap=show_bytes(content.summary["settings"]["set_bytes"]),
    )


def _card(language: dict[str, Any], name: str, entry: dict[str, Any]) -> dict[str, Any]:
    bits = entry["bits_per_byte"]
    figure = ""
    if bits["ratio"] is not None:
        figure = f"{_percent(bits['ratio'])} % bits per byte"
    return {
        "language": language["name"],
        "set": name,
        "tone": tone(bits["verdict"]),
        "word": bits["verdict"] or "no score",
        "figure": figure,
        "sentences": [_without_title(text, language["name"], name, bits["verdict"]) for text in entry["sentences"]],
    }


def _without_title(text: str, language: str, name: str, verdict: str | None) -> str:
    """Sentences stand alone in tables and logs; below a card's own heading their beginning would be said twice."""
    rest = text.removeprefix(set_title(language, name)).lstrip(":, ").removeprefix(f"{verdict}. ")
    return rest[:1].upper() + rest[1:]


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}".replace("-", "−")


def _change_scale(content: Content, suffix: str) -> charts.Scale:
    """Percent, always with zero and a little room on both sides."""
    ends = [0.0]
    for _, _, _, entry in content.sets:
        for key in (f"ratio{suffix}", f"ratio{suffix}_low", f"ratio{suffix}_high"):
            value = entry["bits_per_byte"].get(key)
            if value is not None:
                ends.append(100 * (value - 1))
    room = max(0.08 * (max(ends) - min(ends)), 0.5)
    return charts.Scale(min(ends) - room, max(ends) + room)


def _rows(content: Content, dots: charts.Scale, scale: charts.Scale, suffix: str) -> list[dict[str, Any]]:
    rows = []
    for _, language, name, entry in content.sets:
        bits = entry["bits_per_byte"]
        values = {role: bits[role] for role in _ROLES if bits.get(role) is not None}
        said = ", ".join(f"{role} {value:.3f}" for role, value in values.items())
        rows.append(
            {
                "language": language["name"],
                "set": name,
                **{role: number(bits.get(role)) for role in _ROLES},
                "null": f"{number(bits['uniform_base'], 1)}, {number(bits['uniform_adapted'], 1)}",
                "dots": charts.dots_strip(values, bits["uniform_adapted"], dots, f"bits per byte: {said}"),
                "change": _change(bits, scale, suffix),
            }
        )
    return rows


def _change(bits: dict[str, Any], scale: charts.Scale, suffix: str) -> dict[str, Any]:
    delta, low, high = (bits.get(f"delta{suffix}{end}") for end in ("", "_low", "_high"))
    verdict = bits.get(f"verdict{suffix}")
    ratio, ratio_low, ratio_high = (bits.get(f"ratio{suffix}{end}") for end in ("", "_low", "_high"))
    strip = Markup("")
    if ratio is not None:
        edges = [None if end is None else 100 * (end - 1) for end in (ratio_low, ratio_high)]
        strip = charts.interval_strip(
            edges[0], 100 * (ratio - 1), edges[1], scale, tone(verdict), f"change {_percent(ratio)} %"
        )
    return {
        "delta": signed(delta),
        "interval": "–" if low is None else f"{signed(low)} to {signed(high)}",
        "word": verdict or "no score",
        "tone": tone(verdict),
        "strip": strip,
        "detectable": number(bits.get(f"detectable{suffix}")),
    }


def _bars(content: Content) -> list[dict[str, Any]]:
    found = []
    for language in content.languages:
        for key, unit, digits in (("tokens_per_word", "tokens per word", 2), ("bytes_per_token", "bytes per token", 2)):
            values = language.get(key) or {}
            if any(value is None for value in values.values()) or not values:
                continue
            longest = max(values.values())
            bars = [
                {"name": role, "value": number(value, digits), "width": round(100 * value / longest, 2)}
                for role, value in ((role, values[role]) for role in _ROLES if role in values)
            ]
            ratio = values["adapted"] / values["base"]
            change = "unchanged" if abs(ratio - 1) < 0.0005 else f"{_percent(ratio)} %"
            found.append({"title": f"{language['name']}: {unit} ({change})", "bars": bars})
            break
    return found


def size_notes(content: Content) -> list[str]:
    """How the number of new tokens came about, and what the curve counts."""
    facts = content.tokenizer
    notes = []
    if "auto" in facts:
        notes.append(f"The size was chosen automatically: {facts['auto']['said']}.")
    if content.sizes:
        notes.append(
            f"The dashed line marks the {facts['added']:,} tokens that were added. The curve counts the words that the "
            "tokens were learned from; on other text each saves a little less."
        )
    return notes


def token_notes(content: Content) -> list[str]:
    """Sentences on what stayed the same in the languages the model knew."""
    notes = []
    for language in content.languages:
        share = language.get("held_out_lines_same_ids")
        if share is not None:
            notes.append(f"{language['name']}: {100 * share:.2f} % of held-out lines keep exactly their tokens.")
    facts = content.tokenizer
    if facts.get("guarded_types"):
        changed = facts.get("guarded_types_changed", 0)
        notes.append(f"Of {facts['guarded_types']:,} guarded word types, {changed:,} are split differently.")
    return notes
