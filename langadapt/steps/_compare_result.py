"""From what the bench measured to one table and one pick."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.io import read_json_lines, read_json_object
from langadapt.core.types import Table
from langadapt.core.units import show_bytes
from langadapt.steps._compare_candidates import Candidate, LeftOut
from langadapt.steps._compare_text import Manner
from langadapt.steps._init_setting import Setting

if TYPE_CHECKING:
    from langadapt.evaluate.choice import Choice
    from langadapt.steps._compare_bench import Bench

FILE = "comparison.json"


@dataclass(frozen=True)
class Compared:
    """`summary` is what comparison.json holds; `lines` are those of segments.jsonl."""

    choice: "Choice"
    summary: dict[str, Any]
    lines: list[dict[str, Any]]


def compare(
    here: Setting,
    candidates: Sequence[Candidate],
    left: Sequence[LeftOut],
    manner: Manner,
    out: Output,
    *,
    multiple: int | None = None,
) -> Compared:
    """Put every candidate on the bench, and pick one. What was spent goes to timings.jsonl, which is never hashed."""
    from langadapt.evaluate.choice import Scored, choose, figures
    from langadapt.evaluate.partial import Partial
    from langadapt.steps._compare_bench import BASE, Bench, needs_of

    bench = Bench(here, out.inputs, manner, Partial(out.partial), multiple)
    able = bench.run(candidates)
    left = [*left, *bench.failed]
    for item in bench.failed:
        here.progress.warn(item.sentence)
    names = [candidate.name for candidate in able]
    table_rows = {BASE: here.tables.rows} | dict.fromkeys(names, bench.plan.rows)
    settings = {"samples": manner.bootstrap_samples, "seed": here.seed}
    scored = {name: Scored(name, bench.rows([BASE, *names], name), table_rows) for name in bench.sets}
    choice = choose(scored["target"], needs_of(able), **settings)
    sets = {name: figures(item, choice.name, **settings) for name, item in scored.items()}
    for name in names:
        out.timing("method", method=name, **bench.spent(name))
    summary = {
        "pick": {"method": choice.name, "reason": choice.reason, "not_told_apart": list(choice.tied)},
        "methods": {
            name: bench.figures(name) | {"scores": {key: found[name] for key, found in sets.items()}} for name in names
        },
        "base": {key: found[BASE] for key, found in sets.items()},
        "left_out": [asdict(item) for item in left],
        "sets": {
            name: {"segments": len(chosen.segments), "bytes": chosen.bytes, "documents": chosen.documents}
            for name, chosen in bench.sets.items()
        },
        "new_tokens": len(here.tokens.new_tokens),
        "rows": bench.plan.rows,
        "settings": asdict(manner) | {"document_separator": _shown(bench), "interval": 0.95},
    }
    return Compared(choice, summary, _lines(bench, scored))


def _shown(bench: "Bench") -> str:
    found = bench.separators
    return found.base if found.base == found.new else f"{found.base} (base), {found.new} (new)"


def _lines(bench: "Bench", scored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One line a segment, with nats and tokens of every method."""
    return [
        {
            "set": name,
            "document": segment.document,
            "segment": segment.index,
            "start": segment.start,
            "bytes": segment.end - segment.start,
            "nll": {model: rows[at].nll for model, rows in scored[name].rows.items()},
            "tokens": {model: rows[at].tokens for model, rows in scored[name].rows.items()},
        }
        for name, chosen in bench.sets.items()
        for at, segment in enumerate(chosen.segments)
    ]


def facts_of(compared: Compared) -> dict[str, Any]:
    """The few figures that belong into the facts of an artifact."""
    summary = compared.summary
    return {
        "pick": compared.choice.name,
        "reason": compared.choice.reason,
        "not_told_apart": list(compared.choice.tied),
        "bits_per_byte": {
            name: {key: found["bits_per_byte"] for key, found in entry["scores"].items()}
            for name, entry in summary["methods"].items()
        },
        "left_out": [item["name"] for item in summary["left_out"]],
    }


def comparison_table(folder: Path) -> Table:
    """One row a method, the lowest bits per byte first; the pick and its reason below."""
    summary = read_json_object(folder / FILE)
    timings = folder / "timings.jsonl"
    spent = {
        line["method"]: line
        for line in (read_json_lines(timings) if timings.is_file() else ())
        if line.get("name") == "method"
    }
    methods, source = summary["methods"], "source" in summary["sets"]
    order = sorted(methods, key=lambda name: (methods[name]["scores"]["target"]["bits_per_byte"] or 99.0, name))
    rows = [_row(name, methods[name], spent.get(name, {}), source) for name in order]
    base = [_bits(summary["base"]["target"]), "", *([_bits(summary["base"]["source"])] if source else [])]
    rows.append(("(base, its own tokenizer)", *base, "", "", "", ""))
    columns = (
        "method", "target bits per byte [95 %]", "more than the pick [95 %]",
        *(("source bits per byte [95 %]",) if source else ()),
        "hidden rows: cosine, first, first 10, median rank", "nats taken from old text: mean, highest (bound)",
        "seconds", "memory",
    )  # fmt: skip
    return Table("rows for new tokens, before any training", columns, tuple(rows), _notes(summary, order))


def _row(name: str, entry: Mapping[str, Any], spent: Mapping[str, Any], source: bool) -> tuple[str, ...]:
    target = entry["scores"]["target"]
    mass = entry["head_mass"]
    bounds = "" if mass["bound_mean"] is None else f" ({mass['bound_mean']:.3f}, {mass['bound_highest']:.3f})"
    memory = spent.get("memory_bytes")
    return (
        name,
        _bits(target),
        _interval(target["delta"], target["delta_low"], target["delta_high"]),
        *((_bits(entry["scores"]["source"]),) if source else ()),
        "; ".join(f"{_hidden(found)}" for found in entry["hidden"].values()),
        f"{mass['mean']:.3f}, {mass['highest']:.3f}{bounds}",
        f"{spent['seconds']:.1f}" if "seconds" in spent else "-",
        "-" if memory is None else show_bytes(memory),
    )


def _hidden(found: Mapping[str, Any]) -> str:
    if not found["tokens"]:
        return "-"
    return f"{found['cosine']:.2f}, {found['top1']:.0%}, {found['top10']:.0%}, {found['median_rank']:,.0f}"


def _bits(found: Mapping[str, Any]) -> str:
    return _interval(found["bits_per_byte"], found["low"], found["high"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    shown = f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return shown.replace("-", "−")


def _notes(summary: Mapping[str, Any], order: Sequence[str]) -> tuple[str, ...]:
    pick = summary["pick"]
    notes = [f"Pick: {pick['method'] or 'none'}. {pick['reason']}."]
    sets = sorted(summary["sets"].items(), reverse=True)  # target, source
    sizes = ", ".join(
        f"{found['segments']} segments and {show_bytes(found['bytes'])} of {name} text" for name, found in sets
    )
    # one tokenizer, so one value for all methods
    guess = {name: summary["methods"][order[0]]["scores"][name]["uniform"] for name, _ in sets} if order else {}
    shown = ", ".join(f"{value:.3f} ({name})" for name, value in guess.items())
    notes.append(f"Guessing every token alike: {shown or '-'}. Scored on {sizes}.")
    lost = [
        name for name in order if (summary["methods"][name]["scores"]["target"]["bits_per_byte"] or 0) > guess["target"]
    ]
    if lost:
        notes.append(f"No better than that on target text: {', '.join(f'`{name}`' for name in lost)}.")
    hidden = [found for name in order for found in summary["methods"][name]["hidden"].values() if found["tokens"]]
    if hidden:
        null = f"the mean row has cosine {hidden[0]['cosine_of_mean']:.2f} to them"
        notes.append(
            f"Hidden rows: {hidden[0]['tokens']:,} tokens that the base has, given as if they were new; {null}."
        )
    for name in order:
        seen = max((found.get("looked", 0) for found in summary["methods"][name]["hidden"].values()), default=0)
        if seen:
            notes.append(f"`{name}` made {seen:,} of them with the very rows that were hidden: no figures.")
        why = next((found["why"] for found in summary["methods"][name]["hidden"].values() if "why" in found), None)
        if why:
            notes.append(f"`{name}` made none of them: {why}.")
    left = [LeftOut(item["name"], item["why"], item["hint"]).sentence for item in summary["left_out"]]
    return (*notes, *left)
