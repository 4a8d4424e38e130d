"""What `langadapt diagnose` found, as tables for people."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langadapt.core.languages import display_name
from langadapt.core.types import Table
from langadapt.core.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from langadapt.steps.diagnosis import Diagnosis

Entry = Mapping[str, Any]
MOST_LETTERS = 10


def tables(found: "Diagnosis") -> list[Table]:
    """The text, the models side by side, what training buys, and the advice."""
    names = tuple(entry["label"] for entry in found.models)
    rows = _measures(found) + _scores(found)
    notes = _notes(found)
    shown = [
        Table(f"{display_name(found.lang)} text", ("", ""), tuple(_text(found)), key="text"),
        Table("The model as it is", ("", *names), _rows(found, rows), tuple(notes), key="model"),
    ]
    ahead = _rows(found, _OUTLOOK)
    problems = [f"{item['label']}: {item['outlook_problem']}" for item in found.models if item["outlook_problem"]]
    busy = next((item["outlook"]["timed_while_busy"] for item in found.models if item["outlook"]), None)
    if busy:
        problems.append(f"timed on a busy machine ({busy}); with nothing else running it may take far less time")
    if ahead or problems:
        shown.append(Table("What this text buys", ("", *names), ahead, tuple(problems), key="training"))
    return [*shown, *_advice(found)]


def _advice(found: "Diagnosis") -> list[Table]:
    """Which model first, then a table for each."""
    shown = []
    titles = {"": "Which model", **{entry["model"]: f"Advice for {entry['label']}" for entry in found.models}}
    for model, title in titles.items():
        rows = tuple((item["verdict"], item["why"]) for item in found.advice if item["model"] == model)
        if rows:
            label = title.removeprefix("Advice for ") if model else "which model"
            shown.append(Table(title, ("", ""), rows, key=f"advice, {label}:"))
    return shown


Row = tuple[str, Callable[[Entry], str]]


def _rows(found: "Diagnosis", rows: list[Row]) -> tuple[tuple[str, ...], ...]:
    """Rows that say something of at least one model."""
    cells = [(name, *(show(entry) for entry in found.models)) for name, show in rows]
    return tuple(row for row in cells if any(row[1:]))


def _text(found: "Diagnosis") -> list[tuple[str, str]]:
    text = found.text
    before = {"exact": "", "estimated": "about ", "at least": "at least "}[text["bytes_known"]]
    rows = [("text given", f"{before}{show_bytes(text['bytes'])}, {text['documents']:,} documents read")]
    if text["kept_bytes"] < text["bytes"]:
        said = "prepare drops the rest, in other languages; advice and plan are for this"
        rows.append(("kept", f"about {show_bytes(text['kept_bytes'])}: {said}"))
    if text["lines_without_marks"] is not None:
        rows.append(
            (
                "accents",
                f"{text['marked_letters_share']:.1%} of the letters; {text['lines_without_marks']:.1%} of the lines "
                f"have none (by chance {text['lines_without_marks_by_chance']:.1%})",
            )
        )
    if text["source_bytes"] is not None:
        rows.append((f"{display_name(found.source)} given", show_bytes(text["source_bytes"])))
    return rows


def _measures(found: "Diagnosis") -> list[Row]:
    other = found.source

    def pair(key: str, show: Callable[[float], str]) -> Callable[[Entry], str]:
        def cell(entry: Entry) -> str:
            value = entry["target"][key]
            text = "n/a" if value is None else show(value)
            beside = (entry["source"] or {}).get(key)
            return text if beside is None else f"{text} ({other} {show(beside)})"

        return cell

    def two(value: float) -> str:
        return f"{value:.2f}"

    def share(value: float) -> str:
        return f"{value:.1%}"

    return [
        ("parameters", lambda entry: _millions(entry["parameters"])),
        ("vocabulary", lambda entry: f"{entry['vocabulary']:,}"),
        ("  of it in the script", lambda entry: f"{entry['tokens_in_script']:,}"),
        ("tokens per word", pair("tokens_per_word", two)),
        ("bytes per token", pair("bytes_per_token", two)),
        ("tokens, target over source", lambda entry: "" if entry["parity"] is None else two(entry["parity"])),
        ("words of several tokens", pair("continued_words_share", share)),
        ("pieces of characters", pair("pieces_share", share)),
        ("unknown tokens", pair("unknown_share", share)),
        ("Rényi efficiency", pair("renyi_efficiency", two)),
        ("letters without a token", _letters),
        ("  inside words, also", _form("letter")),
        ("  after a space, also", _form("with space")),
        ("  as a capital, also", _form("capital")),
        ("rows that look unused", _unused),
        ("tokens that this text needs", _needed),
    ]


def _millions(amount: int) -> str:
    return f"{amount / 1e9:.1f} B" if amount >= 1e9 else f"{amount / 1e6:.0f} M"


def _letters(entry: Entry) -> str:
    letters = entry["letters"]
    lost, pieces = letters["unspellable"], letters["in_pieces"]
    without = [*lost, *pieces]
    parts = [f"{len(without)} of {letters['total']}" + (f": {_first(without)}" if without else "")]
    if lost:
        parts.append(f"{len(lost)} cannot be written")
    return ", ".join(parts)


def _form(name: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        letters = entry["letters"]
        without = {*letters["unspellable"], *letters["in_pieces"]}
        missing = [letter for letter in letters["missing"][name] if letter not in without]
        shown = [letter.upper() if name.startswith("capital") else letter for letter in missing]
        return _first(shown)

    return cell


def _first(letters: Sequence[str]) -> str:
    rest = len(letters) - MOST_LETTERS
    return " ".join(letters[:MOST_LETTERS]) + (f" +{rest}" if rest > 0 else "")


def _unused(entry: Entry) -> str:
    rows = entry["unused_rows"]
    if rows is None:
        return "n/a"
    text = f"{rows['identical'] + rows['tiny']:,}"
    return text + (f" and {rows['spare']:,} spare" if rows["spare"] > 0 else "")


def _needed(entry: Entry) -> str:
    used = entry["used_rows"]
    return "n/a" if used is None else f"about {used:,}"


def _scores(found: "Diagnosis") -> list[Row]:
    def cell(role: str, key: str) -> Callable[[Entry], str]:
        def show(entry: Entry) -> str:
            score = entry.get("scores", {}).get(role)
            if score is not None and score.get(key) is None:
                return ""
            if score is None:
                if role != "target" or "not_scored" not in entry:
                    return ""
                return ("n/a" if key == "bits_per_byte" else "") if entry["kind"] is not None else "not scored"
            error = score["standard_error"]
            spread = f" ± {2 * error:.2f}" if key == "bits_per_byte" and error is not None else ""
            return f"{score[key]:.2f}{spread}"

        return show

    return [
        (f"bits per byte, {found.lang}", cell("target", "bits_per_byte")),
        ("  n-grams of the text", cell("target", "ngrams")),
        ("  guessing a token", cell("target", "guessing")),
        (f"bits per byte, {found.source}", cell("source", "bits_per_byte")),
    ]


def _notes(found: "Diagnosis") -> list[str]:
    notes = []
    script = found.models[0]["target"]["unspaced_script"]
    if script:
        notes.append(f"no tokens per word: {script} puts no spaces between words")
    scores = [entry["scores"]["target"] for entry in found.models if "scores" in entry]
    if scores:
        notes.append(
            f"bits per byte: {scores[0]['passages']} passages, {show_bytes(scores[0]['bytes'])}, without context; "
            "compare models by it, not languages"
        )
    return notes


def _outlook_cell(show: Callable[[Entry], str]) -> Callable[[Entry], str]:
    return lambda entry: "" if entry["outlook"] is None else show(entry["outlook"])


_OUTLOOK: list[Row] = [
    ("new tokens", _outlook_cell(lambda found: f"{found['new_tokens']:,}")),
    ("tokens", _outlook_cell(lambda found: f"{found['tokens']:,}")),
    ("passes over the text", _outlook_cell(lambda found: f"{found['epochs']:.2g}")),
    ("steps", _outlook_cell(lambda found: f"{found['steps']:,} of {found['batch_tokens']:,}")),
    ("strategy", _outlook_cell(lambda found: found["strategy"] or "none fits")),
    (
        "memory",
        _outlook_cell(lambda found: f"{show_bytes(found['memory_bytes'])} ({show_bytes(found['free_bytes'])} free)"),
    ),
    ("time here", _outlook_cell(lambda found: f"{show_seconds(found['seconds'])} ({found['device']})")),
]
