"""Let models go on with a text, side by side.

MODEL is a folder, a .gguf file, a hub id, or a step of the recipe that is here. PROMPT is the beginning of a text; `-`
reads prompts from stdin, one a line. In a pipe: one line `MODEL<TAB>text` for each, control characters as escapes.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.listener import listening
from langadapt.cli.options import shared
from langadapt.cli.output import screen, visible
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from langadapt.steps.try_models import Manner, Reply

PANEL = "Writing"
EXAMPLES = (
    "Examples:\n\n"
    'langadapt try models/smollm2 runs/adapted "Magyarország fővárosa"\n\n'
    'langadapt try runs/adapted --sample --seed 3 --tokens 80 "Egyszer volt, hol nem volt"\n\n'
    "langadapt try base cpt --json - < prompts.txt"
)
MAX_PROMPT_BYTES = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add `langadapt try`."""
    app.command("try", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(try_models))


def _number(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=PANEL)


def try_models(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="One model or several.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The beginning of a text, or `-` for stdin.")],
    tokens: Annotated[int, _number("--tokens", "N", "New tokens at most.")] = 40,
    greedy: Annotated[
        bool,
        typer.Option("--greedy/--sample", rich_help_panel=PANEL, show_default=False,
                     help="The most probable token each time (default), or one by chance."),
    ] = True,
    temperature: Annotated[
        float | None, _number("--temperature", "X", "Divides the logits before chance decides; by default 0.8.")
    ] = None,
    top_p: Annotated[
        float | None, _number("--top-p", "P", "Chance is among the fewest tokens of this probability; by default 0.95.")
    ] = None,
    seed: Annotated[int | None, _number("--seed", "N", "Another number is another text; by default 0.")] = None,
    repetition_penalty: Annotated[
        float | None,
        _number("--repetition-penalty", "X",
                "Makes less likely what was written; by default 1.3 as in `evaluate`, with --sample 1 (none)."),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="The prompt is what a user says, in the model's chat template.", metavar="",
                     show_default=False, rich_help_panel=PANEL),
    ] = False,
) -> None:  # fmt: skip
    """Run the models and show what they write."""
    from langadapt.recipe.workspace import step_output
    from langadapt.steps import try_models as work

    given = {"temperature": temperature, "top_p": top_p, "seed": seed}
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if greedy and chosen:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in chosen)
        raise ConfigError(f"{flags} without --sample: the most probable token leaves nothing to chance",
                          hint="add --sample")  # fmt: skip
    manner = work.Manner(tokens=tokens, sample=not greedy, repetition_penalty=repetition_penalty, chat=chat, **chosen)
    prompts = _prompts(prompt)
    places = [model if Path(model).exists() else str(step_output(model) or model) for model in models]
    with listening(screen, "try") as listener:
        replies = work.try_models(places, prompts, manner, progress=Progress(listener))
    _show(models, prompts, replies, manner)


def _prompts(given: str) -> list[str]:
    """The prompt, or the lines of stdin that hold more than blanks."""
    if given != "-":
        return [given]
    if sys.stdin.isatty():
        screen.say("reading prompts from the terminal, one a line; end with Ctrl-D")
    content = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(content) > MAX_PROMPT_BYTES:
        raise DataError("more than 1 MiB of prompts", where="input `-`")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the prompts are not UTF-8: byte {error.start}", where="input `-`") from error
    found = [line for line in text.split("\n") if line.strip()]
    if not found:
        raise DataError("stdin holds no prompt", where="input `-`")
    return [line.removesuffix("\r") for line in found]


def _show(models: list[str], prompts: list[str], replies: "list[Reply]", manner: "Manner") -> None:
    """One object with --json; columns or one below the other for a person; lines in a pipe."""
    width = len(models)
    rows = [replies[start : start + width] for start in range(0, len(replies), width)]
    if screen.json:
        results = [
            {
                "prompt": prompt,
                "replies": [asdict(reply) | {"model": name} for name, reply in zip(models, row, strict=True)],
            }
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        screen.emit({"schema": "langadapt/try/1", "manner": asdict(manner), "results": results})
        return
    for prompt, row in zip(prompts, rows, strict=True):
        if screen.human:
            columns = [(name, _figures(reply), reply.text) for name, reply in zip(models, row, strict=True)]
            screen.beside(prompt, columns)
        else:
            for name, reply in zip(models, row, strict=True):
                screen.raw(f"{visible(name)}\t{visible(reply.text)}")


def _figures(reply: "Reply") -> str:
    """`3.41 tokens per word, 1.2 s`, and whether the model came to an end."""
    cost = (
        f"{reply.prompt_tokens} tokens"
        if reply.tokens_per_word is None
        else f"{reply.tokens_per_word:.2f} tokens per word"
    )
    ended = ", ended by itself" if reply.ended == "model" else ""
    return f"{cost}, {reply.seconds:.1f} s{ended}"
