"""Answers a shell that wants to complete a word: `langadapt __complete SHELL ...`, asked by its completion script.

The first line of the answer is what else the shell should offer (`files`, `folders` or `none`), each further line a
candidate and its description, separated by a tab. Nothing of it is ever evaluated by a shell.
"""

import contextlib
import inspect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from langadapt.cli import candidates
from langadapt.cli.candidates import Candidate
from langadapt.core import listing
from langadapt.core.errors import LangadaptError

BEFORE_VERB = (
    ("--help", "Show help."), ("--version", "Show the version."), ("--json", "Print one JSON object."),
    ("--quiet", "No progress and no notes."), ("--verbose", "Say more."), ("--debug", "Show tracebacks."),
    ("--no-color", "No colours."),
)  # fmt: skip
_FILES = ("PATH", "FILE", "RECIPE", "TEXT...")
_FOLDERS = ("DIR", "RUN")


@dataclass
class Answer:
    """What to offer: candidates, and `files`, `folders` or `none` besides."""

    found: list[Candidate] = field(default_factory=list)
    also: str = "none"


@dataclass(frozen=True)
class Word:
    """One option or argument of a command."""

    names: tuple[str, ...]
    metavar: str
    help: str
    takes_value: bool
    repeatable: bool
    known: Callable[..., Any] | None
    kinds: tuple[str, ...] | None = None
    shape: str = "one"


def main(arguments: list[str]) -> list[str]:
    """The lines of the answer to `SHELL ...`; an error gives no candidates, since nobody reads its message."""
    shell, *rest = arguments or ["bash"]
    try:
        if shell == "bash":
            # bash cuts words at `=` and `:`; the whole line says what was typed, `rest` what it will replace
            before, current = split_line(os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", ""))
            keep = len(current) - len(rest[0]) if rest and current.endswith(rest[0]) else 0
        else:
            before, current, keep = rest[:-1], rest[-1] if rest else "", 0
        answer = offer(before[1:], current)
    except (LangadaptError, OSError, ValueError):
        return ["files"]
    lines = [answer.also]
    for value, text in answer.found:
        if value.startswith(current) and value.isprintable():
            lines.append(f"{value[keep:]}\t{' '.join(text.split())}")
    return lines


def split_line(line: str, point: str) -> tuple[list[str], str]:
    """Words before the cursor and the word under it, quotes taken off; an open quote is closed first."""
    text = line.encode()[: int(point)].decode("utf-8", "ignore") if point.isdigit() else line
    for closing in ("", '"', "'"):
        with contextlib.suppress(ValueError):
            words = shlex.split(text + closing)
            if not text or (text[-1].isspace() and not closing and not text.endswith("\\ ")):
                words.append("")
            return words[:-1], words[-1] if words else ""
    return [], ""


def offer(before: list[str], current: str) -> Answer:
    """Candidates for `current` after the words `before` (without the program's name)."""
    rest = list(before)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--progress" and rest:
            rest.pop(0)
    if not rest:
        if current.startswith("-"):
            return Answer(list(BEFORE_VERB))
        verbs = [(name, listing.summary("langadapt.steps", name)) for name in listing.verb_names()]
        return Answer(verbs + [(name, listing.summary("langadapt.cli", name)) for name in listing.command_names()])
    name, *words = rest
    if name not in listing.verb_names() + listing.command_names():
        return Answer(also="files")
    return _in_command(name, words_of(name), words, current)


def _in_command(name: str, known: list[Word], words: list[str], current: str) -> Answer:
    options = {text: word for word in known for text in word.names}
    waiting: Word | None = None
    used: set[str] = set()
    given: list[str] = []
    literal = False
    for text in words:
        if waiting is not None:
            waiting = None
        elif literal or not text.startswith("-") or text == "-":
            given.append(text)
        elif text == "--":
            literal = True
        else:
            head, equals, _ = text.partition("=")
            used.add(head)
            word = options.get(head)
            waiting = word if word is not None and word.takes_value and not equals else None
    if waiting is not None:
        return value(name, waiting, given, current)
    head, equals, tail = current.partition("=")
    if equals and head in options and not literal:
        answer = value(name, options[head], given, tail)
        return Answer([(f"{head}={text}", help) for text, help in answer.found], answer.also)
    if current.startswith("-") and not literal:
        free = [word for word in known if word.names and (word.repeatable or not used & set(word.names))]
        return Answer([(text, word.help) for word in free for text in word.names if text.startswith("--")])
    places = [word for word in known if not word.names]
    if not places:
        return Answer()
    # what may be repeated may be all that is there: `try MODEL... PROMPT`
    repeated = next((word for word in places[: len(given) + 1] if word.repeatable), None)
    place = repeated or places[min(len(given), len(places) - 1)]
    if len(given) >= len(places) and not place.repeatable:
        return Answer()
    return value(name, place, given, current)


def value(name: str, word: Word, given: list[str], current: str) -> Answer:
    """Candidates for the value of one option or argument."""
    if word.shape == "map" and "=" in current:
        key, _, tail = current.partition("=")
        inner = value(name, Word((), word.metavar, "", True, False, word.known, word.kinds), given, tail)
        return Answer([(f"{key}={text}", help) for text, help in inner.found], inner.also)
    metavar = word.metavar.strip("[]").removeprefix("NAME=")
    recipe = Path(given[0]) if name == "run" and given else candidates.WORKSPACE
    if word.known is not None:
        return Answer(_pairs(word.known()), also="files" if word.kinds is not None or metavar in _FILES else "none")
    if word.kinds is not None:
        return Answer(candidates.artifacts(current, word.kinds), "files")
    if "-o" in word.names:
        return Answer(settings(recipe, current) if name == "run" else keys(name))
    if metavar == "LANG" or {"--lang", "--source-lang"} & set(word.names):
        return Answer(candidates.languages())
    if metavar in ("STEP", "STEP..."):
        return Answer(candidates.steps(recipe))
    if metavar == "RECIPE":
        return Answer(candidates.recipes(), "files")
    if metavar == "WHAT" and name == "show":
        return Answer([("method", "what a method takes"), *candidates.artifacts(current)], "files")
    if metavar == "NAME" and name in ("show", "list"):
        return Answer(candidates.methods() if given[:1] in (["method"], ["methods"]) else [])
    if metavar in ("MODEL...", "TOK..."):
        kinds = ("model",) if metavar == "MODEL..." else ("tokenizer", "model")
        return Answer([*candidates.artifacts(current, kinds), *candidates.steps()], "files")
    if metavar in ("ARTIFACT", "ARTIFACT...", "MODEL"):
        return Answer(candidates.artifacts(current, ("model",) if metavar == "MODEL" else ()), "files")
    also = "files" if metavar in _FILES else "folders" if metavar in _FOLDERS else "none"
    choices = [(text, "") for text in metavar.split("|")] if "|" in metavar else []
    return Answer(choices, also)


def keys(verb: str) -> list[Candidate]:
    """`key=` for every setting of a verb."""
    from langadapt.core.verb import load

    fields = load(verb).config.model_fields
    return [(f"{name}=", item.description or "") for name, item in fields.items()]


def settings(recipe: Path, current: str) -> list[Candidate]:
    """`NAME=` and `STEP.`, and behind a step `STEP.key=`: what `run -o` takes."""
    step, dot, _ = current.partition(".")
    verb = dict(candidates.steps(recipe)).get(step)
    if dot and verb in listing.verb_names():
        return [(f"{step}.{key}", text) for key, text in keys(str(verb))]
    return candidates.variables(recipe)


def _pairs(found: Any) -> list[Candidate]:
    return [item if isinstance(item, tuple) else (str(item), "") for item in found]


def words_of(name: str) -> list[Word]:
    """Options and arguments of a command, from the declaration that its help is made from."""
    import typer

    app = typer.Typer()
    inputs: dict[str, Any] = {}
    if name in listing.verb_names():
        from langadapt.cli.bind import register_verb
        from langadapt.cli.flags import bindings
        from langadapt.core.verb import load

        register_verb(app, name)
        inputs = {item.name: item for item in bindings(load(name).config)}
    else:
        from langadapt.cli.commands import register_command

        register_command(app, name)
    callback: Any = app.registered_commands[0].callback
    return [
        _word(key, item.annotation, inputs.get(key)) for key, item in inspect.signature(callback).parameters.items()
    ]


def _word(name: str, annotation: Any, binding: Any) -> Word:
    kind, info = get_args(annotation)[:2] if get_origin(annotation) is Annotated else (annotation, None)
    declared = [info.default] if info is not None and isinstance(info.default, str) else []
    declared += list(getattr(info, "param_decls", None) or ())
    is_option = type(info).__name__ == "OptionInfo"
    names = tuple(part for text in declared for part in str(text).split("/")) if is_option else ()
    if is_option and not names:
        names = (f"--{name.replace('_', '-')}",)
    many = any(get_origin(part) is list for part in (kind, *get_args(kind)))
    switch = bool in (kind, *get_args(kind)) or bool(getattr(info, "count", False))
    metavar = (getattr(info, "metavar", None) or name).upper()
    if "|" in metavar or is_option:
        metavar = getattr(info, "metavar", None) or metavar
    reads = binding.reads.reads if binding is not None and binding.reads is not None else None
    return Word(
        names,
        metavar,
        (getattr(info, "help", None) or "").replace("\\[", "["),
        not switch,
        many,
        getattr(info, "autocompletion", None) or getattr(info, "shell_complete", None),
        reads.kinds if reads is not None else None,
        binding.shape if binding is not None else "one",
    )
