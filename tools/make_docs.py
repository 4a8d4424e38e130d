"""Write docs/cli.md from the declarations of verbs and commands, and tables of memory from the formula.

With --check only compare (exit 1 if one is stale).
"""

import argparse
import difflib
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from langadapt.cli import app as program
from langadapt.cli.bind import OWN, register_verb
from langadapt.cli.commands import register_command
from langadapt.cli.flags import bindings, show_default
from langadapt.cli.options import SHARED
from langadapt.core import listing
from langadapt.core.verb import Verb, load

DOCS = Path(__file__).parent.parent / "docs"
PAGE, MEMORY, STRATEGIES = DOCS / "cli.md", DOCS / "memory.md", DOCS / "which-strategy.md"
# Strategies whose cost the page about them compares; others cost what one of them does.
COSTED = ("full", "ssu", "hft", "layers", "subnetwork", "lora", "shielded-lora", "embeddings", "new-tokens")
BEGIN, END = "<!-- table made by tools/make_docs.py -->", "<!-- end of table -->"

HEAD = """# Command line

<!-- made by tools/make_docs.py from the declarations; do not edit -->

`langadapt VERB INPUT... --out DIR [options]`. Every verb reads artifacts or plain files and writes one artifact, a
folder. In a folder with a `langadapt.yaml` (made by `langadapt init`) a verb without inputs runs the recipe up to the
step that uses it.

- stdout carries the result only: a table on a terminal, the path of the artifact in a pipe, one JSON object with
  `--json`. Everything else goes to stderr.
- A value comes from, in this order: a flag, `-o key=value`, the file given with `-c`, the default. `--print-config`
  shows where each came from.
- Running the same command again: complete means "up to date", unfinished means it goes on, different settings mean it
  is refused (exit 4).
- Counts may be written `8k` (8,000) or `8Ki` (8,192), bytes `2MB` or `1GiB`, times `90s`, `15min` or `8h`. Languages
  are BCP 47 or ISO 639 codes: `hu`, `hun`, `hun_Latn`.
- `-` among the inputs of `prepare` reads text from stdin.

## Exit codes

| code | meaning |
|---|---|
"""


def page() -> str:
    """The whole page; the same bytes for the same declarations."""
    lines = [HEAD.rstrip("\n")]
    lines += ["| {} | {} |".format(*text.partition(" ")[::2]) for text in program.EXIT_CODES]
    lines += ["", "## Options of every command", "", *_table(_rows(SHARED)), ""]
    lines += ["## Options of every verb", "", *_table(_rows(OWN)), "", "# Verbs", ""]
    for name in listing.verb_names():
        lines += _verb(load(name))
    lines += ["# Commands", ""]
    for name in listing.command_names():
        lines += _command(name)
    return "\n".join(lines).rstrip("\n") + "\n"


def _verb(verb: Verb) -> list[str]:
    app = typer.Typer()
    register_verb(app, verb.name)
    info = app.registered_commands[0]
    bound = bindings(verb.config)
    usage = " ".join(
        ["langadapt", verb.name, *(item.label for item in bound if item.positional), "--out DIR [options]"]
    )
    lines = [f"## {verb.name}", "", *_text(verb.module.__doc__), f"    {usage}", ""]
    lines += [f"Makes: a `{verb.kind}` artifact.", ""]
    examples = getattr(verb.module, "EXAMPLES", ())
    if examples:
        lines += ["```console", *examples, "```", ""]
    own = {name: value for name, value in _annotations(info.callback).items() if name not in SHARED | OWN}
    lines += [*_table(_rows(own)), ""]
    flags = {item.name for item in bound}
    rest = [(name, field) for name, field in verb.config.model_fields.items() if name not in flags]
    if rest:
        lines += ["Set with `-o`:", "", "| key | default | what it does |", "|---|---|---|"]
        for name, field in rest:
            default = "required" if field.is_required() else show_default(field.get_default(call_default_factory=True))
            lines.append(f"| `{name}` | {_cell(default)} | {_cell(field.description or '')} |")
        lines.append("")
    return lines


def _command(name: str) -> list[str]:
    app = typer.Typer()
    register_command(app, name)
    info = app.registered_commands[0]
    own = {key: value for key, value in _annotations(info.callback).items() if key not in SHARED}
    words = [
        _name(key, _info(value)) for key, value in own.items() if isinstance(_info(value), typer.models.ArgumentInfo)
    ]
    options = ["[options]"]
    lines = [f"## {name}", "", *_text(info.help), f"    {' '.join(['langadapt', name, *words, *options])}", ""]
    rows = _rows(own)
    return lines + ([*_table(rows), ""] if rows else [])


def _annotations(function: Any) -> dict[str, Any]:
    return {name: item.annotation for name, item in inspect.signature(function).parameters.items()}


def _info(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[1]
    raise TypeError(f"{annotation} has no typer.Option or typer.Argument")


def _rows(annotations: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, annotation in annotations.items():
        info = _info(annotation)
        shown = _name(name, info)
        if isinstance(info, typer.models.OptionInfo) and info.metavar:
            shown += f" {info.metavar}"
        rows.append((shown, (info.help or "").replace("\\[", "[")))
    return rows


def _name(name: str, info: Any) -> str:
    if isinstance(info, typer.models.ArgumentInfo):
        return info.metavar or name.upper()
    declared = [str(text) for text in ([info.default] if isinstance(info.default, str) else [])]
    names = declared + [str(text) for text in info.param_decls or ()]
    return ", ".join(names) or f"--{name.replace('_', '-')}"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| `{_cell(name)}` | {_cell(text)} |" for name, text in rows)]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(text: str | None) -> list[str]:
    lines: list[str] = []
    for paragraph in (text or "").strip().split("\n\n"):
        lines += [" ".join(paragraph.split()), ""]
    return lines


def memory_page(old: str) -> str:
    """docs/memory.md with its table made anew."""
    from langadapt.train.cards import reference_table

    return _filled(old, _drawn(reference_table()))


def strategy_page(old: str) -> str:
    """docs/which-strategy.md with its tables made anew: a model after the other, a line a strategy."""
    from langadapt.core.registry import load_method
    from langadapt.train.cards import MODELS, strategy_table

    lines = []
    for model in MODELS:
        portions = {}
        for name in COSTED:
            method = load_method("select", name)
            portion = method.facts.portion
            portions[name] = None if portion is None else portion(method.options())
        lines += ["", f"### {model}", "", *_drawn(strategy_table(model, portions))]
    return _filled(old, [*lines, ""])


def _drawn(table: list[list[str]]) -> list[str]:
    head, *rows = table
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _filled(old: str, lines: list[str]) -> str:
    """A page with these lines between the marks."""
    before, _, rest = old.partition(BEGIN)
    return "\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]])


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 if a page is not what would be written")
    check = parser.parse_args().check
    pages = (PAGE, MEMORY, STRATEGIES)
    old = {path: path.read_text(encoding="utf-8") if path.is_file() else "" for path in pages}
    new = {PAGE: page(), MEMORY: memory_page(old[MEMORY]), STRATEGIES: strategy_page(old[STRATEGIES])}
    stale = [path for path in new if new[path] != old[path]]
    if not check:
        for path in stale:
            path.write_text(new[path], encoding="utf-8", newline="\n")
        return 0
    for path in stale:
        print(f"docs/{path.name} is stale; run: python tools/make_docs.py", file=sys.stderr)
        lines = difflib.unified_diff(old[path].splitlines(), new[path].splitlines(), "written", "declared", lineterm="")
        print(*list(lines)[:40], sep="\n", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
