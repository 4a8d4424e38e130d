"""Look at tokenizers: their cost on a text, the difference of two, pieces and ids.

`stats TOK...` and `compare A B` measure on `--text`; `encode TOK TEXT` shows pieces with ids; `decode TOK ID...` goes
back. TOK is a folder, an artifact, a tokenizer.json, a .gguf file, a hub id, or a step of the recipe that is here.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.execute import stdin_as_file
from langadapt.cli.listener import listening
from langadapt.cli.options import action as one_action
from langadapt.cli.options import check_action, shared, switch
from langadapt.cli.output import screen, visible
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress
from langadapt.core.types import Table
from langadapt.core.units import parse_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PANEL = "Input"
ACTIONS = ("stats", "compare", "encode", "decode")
EXAMPLES = (
    "Examples:\n\n"
    "langadapt tokenizer stats models/smollm2 runs/tokenizer --text hu.txt\n\n"
    "langadapt tokenizer compare models/smollm2 runs/tokenizer --text data/hu\n\n"
    'langadapt tokenizer encode runs/tokenizer "Jó reggelt!"\n\n'
    "langadapt tokenizer decode runs/tokenizer 17 4 391"
)
# In the order of the table; shares are shown in per cent to people.
ROWS = {
    "documents": "documents", "bytes": "bytes", "words": "words", "tokens": "tokens",
    "bytes_per_token": "bytes per token", "tokens_per_word": "tokens per word",
    "continued_words_share": "words in two or more tokens", "byte_tokens_share": "tokens that are bytes",
    "unknown_share": "unknown tokens", "renyi_efficiency": "Rényi efficiency (2.5)",
    "renyi_efficiency_of_used": "the same, of used tokens", "vocabulary": "vocabulary", "used_tokens": "used tokens",
    "used_share": "used share of the vocabulary",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add `langadapt tokenizer`."""
    app.command("tokenizer", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(tokenizer))


def tokenizer(
    action: Annotated[str, one_action(ACTIONS)],
    words: Annotated[
        list[str], typer.Argument(metavar="TOK...", help="Tokenizers; behind one of them a text, or ids.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="FILE", rich_help_panel=PANEL,
                     help="Text file, folder or corpus artifact to measure on; `-` is stdin (repeatable)."),
    ] = None,
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", metavar="BYTES", help="Measure on about the first so many bytes.",
                          rich_help_panel=PANEL)
    ] = "20MB",
    special: Annotated[
        bool, switch("--special", help="encode: with the tokens that the tokenizer puts around a text.", panel=PANEL)
    ] = False,
) -> None:  # fmt: skip
    """Do one of the four."""
    check_action("tokenizer", action, ACTIONS)
    measures = action in ("stats", "compare")
    if measures != bool(text):
        raise ConfigError(f"`tokenizer {action}` {'needs' if measures else 'takes no'} --text",
                          hint="--text FILE" if measures else "see `langadapt tokenizer --help`")  # fmt: skip
    if special and action != "encode":
        raise ConfigError(f"`tokenizer {action}` takes no --special")
    if action == "compare" and len(words) != 2:
        raise ConfigError(f"`tokenizer compare` takes two tokenizers, not {len(words)}", hint="for more: stats")
    if measures:
        _measure(action, words, text or [], max_bytes)
    elif action == "encode":
        _encode(words, special=special)
    else:
        _decode(words)


def _open(name: str, progress: Progress | None = None) -> "PreTrainedTokenizerBase":
    from langadapt.recipe.workspace import step_output
    from langadapt.steps.tokenizers import open_tokenizer

    return open_tokenizer(name if Path(name).exists() else step_output(name) or name, progress)


def _measure(action: str, names: list[str], texts: list[str], max_bytes: str) -> None:
    from langadapt.steps import tokenizers

    try:
        limit = parse_bytes(max_bytes)
    except ValueError as error:
        raise ConfigError(str(error), where="--max-bytes") from error
    with _files(texts) as places, listening(screen, "tokenizer") as listener:
        progress = Progress(listener)
        opened = [_open(name, progress) for name in names]
        read = tokenizers.read_texts(places, int(str(limit)), progress)
        if action == "stats":
            _show(texts, names, tokenizers.stats(opened, read, progress), None)
        else:
            found = tokenizers.compare(opened[0], opened[1], read, progress)
            _show(texts, names, found.pop("figures"), found)


@contextmanager
def _files(texts: Sequence[str]) -> Iterator[list[Path]]:
    """The places of the texts, stdin as a temporary file."""
    if texts.count("-") > 1:
        raise ConfigError("`-` (stdin) is given twice; it can be read once")
    if "-" not in texts:
        yield [Path(text) for text in texts]
        return
    with stdin_as_file() as place:
        yield [place if text == "-" else Path(text) for text in texts]


def _show(texts: list[str], names: list[str], figures: list[dict[str, Any]], found: dict[str, Any] | None) -> None:
    rows = [(title, *(_value(key, item[key]) for item in figures)) for key, title in ROWS.items()]
    unspaced = figures[0]["unspaced_script"]
    notes = (f"{unspaced} puts no spaces between words: there is nothing to count per word",) if unspaced else ()
    data: dict[str, Any] = {
        "schema": f"langadapt/tokenizer-{'stats' if found is None else 'compare'}/1",
        "text": texts,
        "tokenizers": [{"tokenizer": name, **item} for name, item in zip(names, figures, strict=True)],
    }
    tables = []
    if found is not None:
        data |= found
        rows.append(("tokens that only it has", "", _value("", found["new_tokens"])))
        rows.append(("of them used", "", _value("", found["new_tokens_used"])))
        for part in ("documents", "lines"):
            for what in ("tokens", "ids"):
                rows.append((f"{part} with the same {what}", _value("_share", found[f"{part}_same_{what}"]), ""))
        changed = [
            (visible(item["word"]), f"{item['count']:,}", *map(visible, item["pieces"]))
            for item in found["changed_words"]
        ]
        if changed and screen.human:
            tables.append(Table("words that changed most", ("word", "times", *names), tuple(changed)))
    tables.insert(0, Table(f"on {', '.join(texts)}", ("", *names), tuple(rows), notes))
    screen.emit(data, tables=tables)


def _value(key: str, value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}" if screen.human else str(value)
    if key.endswith("_share") and screen.human:
        return f"{value:.2%}"
    return f"{value:.4f}"


def _encode(words: list[str], *, special: bool) -> None:
    from langadapt.steps.tokenizers import encode

    if len(words) != 2:
        raise ConfigError("`tokenizer encode` takes a tokenizer and one text", hint="put the text in quotes")
    pieces = encode(_open(words[0]), _stdin() if words[1] == "-" else words[1], special=special)
    rows = tuple((str(item.id), visible(item.piece), visible(item.text)) for item in pieces)
    data = {"schema": "langadapt/tokenizer-encode/1", "tokenizer": words[0], "tokens": [asdict(it) for it in pieces]}
    screen.emit(data, tables=[Table("", ("id", "piece", "text"), rows, (f"{len(rows)} tokens",))])


def _decode(words: list[str]) -> None:
    from langadapt.steps.tokenizers import decode

    name, *given = words
    parts = (_stdin() if given == ["-"] else " ".join(given)).replace(",", " ").split()
    if not parts:
        raise ConfigError("`tokenizer decode` takes a tokenizer and ids", hint="numbers with spaces or commas")
    wrong = next((part for part in parts if not (part.isascii() and part.isdigit() and len(part) < 10)), None)
    if wrong is not None:
        raise ConfigError(f"`{wrong}` is not an id", hint="ids are numbers with spaces or commas between them")
    text = decode(_open(name), [int(part) for part in parts])
    data = {"schema": "langadapt/tokenizer-decode/1", "tokenizer": name, "text": text}
    if screen.json:
        screen.emit(data)
    else:
        # a pipe gets the text itself, so that what was encoded comes back
        screen.raw(visible(text, lines=True) if screen.human else text)


def _stdin() -> str:
    """All of stdin, without its last line end."""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin is not UTF-8: byte {error.start}", where="input `-`") from error
