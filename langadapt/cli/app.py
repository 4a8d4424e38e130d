"""The executable: finds the command that was asked for, imports that one only, and turns errors into exit codes."""

import errno
import itertools
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from langadapt.cli.output import screen
from langadapt.cli.streams import Forgiving, fill_streams, plain_only, prepare_streams, to_null
from langadapt.core import listing
from langadapt.core.boundary import is_out_of_memory
from langadapt.core.errors import ConfigError, LangadaptError, ResourceError

if TYPE_CHECKING:
    import typer

PROGRAM = "langadapt"
# What the scripts of `langadapt completion` ask; not a command for people.
COMPLETE = "__complete"
# May stand before the verb as well.
MOVABLE = ("--json", "--table", "-q", "--quiet", "-v", "--verbose", "--debug", "--no-color")
ABOUT = "Adapt language models to new languages: vocabulary, embeddings, continued pretraining, honest evaluation."
CLOSED_PIPE = 141
# Below this, boxes and columns leave no room for words.
HELP_COLUMNS = 60
EXIT_CODES = (
    "0 done or up to date", "1 failed", "2 usage or config", "3 bad input", "4 output exists or is held",
    "5 resources", "6 refused for safety", "75 stopped, run again to go on", "130/143 interrupted", "141 closed pipe",
)  # fmt: skip


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command; always ends in SystemExit with one of the exit codes of docs/cli.md."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    fill_streams()
    prepare_streams()
    # what goes wrong before the options are read should be told as they ask
    screen.debug = "--debug" in arguments
    screen.json = "--json" in arguments
    screen.color = "--no-color" not in arguments
    screen.progress = "json" if "--progress=json" in arguments or _pair(arguments) else "auto"
    if not sys.stdout.isatty() or not screen.color or os.environ.get("NO_COLOR"):
        # Typer writes colours into pipes when it sees GITHUB_ACTIONS or FORCE_COLOR
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    with _Guard():
        _dispatch(arguments)
        sys.stdout.flush()
    raise SystemExit(0)


def _pair(arguments: list[str]) -> bool:
    return any(pair == ("--progress", "json") for pair in itertools.pairwise(arguments))


class _Guard:
    """Ends the process in an orderly way, whatever happened inside."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if _is_closed_pipe(error):
            # the rest of the output, also what the interpreter flushes at exit, goes nowhere
            to_null(1)
            raise SystemExit(CLOSED_PIPE) from None
        if isinstance(error, SystemExit):
            return
        if screen.debug and not isinstance(error, KeyboardInterrupt):
            import traceback

            Forgiving(sys.stderr).write("".join(traceback.format_exception(error)))
        known = _as_known(error)
        if known is None:
            raise SystemExit(130) from None
        screen.error(known)
        raise SystemExit(known.exit_code) from None


def _is_closed_pipe(error: BaseException) -> bool:
    # Typer turns a closed pipe into SystemExit(1); the cause is still its context
    return isinstance(error, BrokenPipeError) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    )


def _as_known(error: BaseException) -> LangadaptError | None:
    """What to show for any exception; None for an interrupt."""
    if isinstance(error, LangadaptError):
        return error
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return None
    if is_out_of_memory(error):
        return ResourceError(
            "out of memory", hint="run with `--dry-run` to see how much is needed, or use a smaller batch"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"no space left: {error.filename or error.strerror}", hint="free some space and run again")
    if isinstance(error, OSError) and error.filename is not None:
        return LangadaptError(f"`{error.filename}`: {error.strerror}")
    return LangadaptError(
        f"internal error: {type(error).__name__}: {error}", hint="run with --debug and report what it shows"
    )


def _dispatch(arguments: list[str]) -> None:
    for text in arguments:
        # such a name cannot be written into a manifest, which is UTF-8
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(
                f"`{text}` is not text in the encoding {sys.getfilesystemencoding()}",
                hint="export PYTHONUTF8=1, or if that does not help, give the file a name in UTF-8",
            )
    if arguments[:1] == [COMPLETE]:
        from langadapt.cli import complete

        screen.raw("\n".join(complete.main(arguments[1:])))
        return
    moved = []
    while arguments and (arguments[0] in MOVABLE or arguments[0].partition("=")[0] == "--progress"):
        moved.append(arguments.pop(0))
        if moved[-1] == "--progress" and arguments:
            moved.append(arguments.pop(0))
    if arguments and arguments[0] in ("--version", "-V"):
        _version()
        return
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    verbs, commands = listing.verb_names(), listing.command_names()
    if name is not None and name not in verbs + commands:
        raise _unknown(name, verbs + commands)
    if not arguments:
        arguments = ["--help"]
    app = build(name, verbs, commands)
    if _asks_help(arguments) and (plain_only(sys.stdout) or width() < HELP_COLUMNS):
        from langadapt.cli.plain_help import lines

        screen.raw("\n".join(lines(app, name, width())))
        return
    _run(app, arguments[:1] + moved + arguments[1:], name)


def _version() -> None:
    import langadapt

    if screen.json:
        values = {"schema": "langadapt/version/1", "version": langadapt.__version__, "python": sys.version.split()[0]}
        screen.emit(values)
    else:
        screen.raw(f"{PROGRAM} {langadapt.__version__}")


def _asks_help(arguments: list[str]) -> bool:
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--help" in words or "-h" in words


def width() -> int:
    """Columns of the terminal, by COLUMNS or the terminal itself; 80 where there is none."""
    import shutil

    return max(shutil.get_terminal_size().columns, 1)


def _run(app: "typer.Typer", arguments: list[str], name: str | None) -> None:
    from typer.exceptions import TyperException

    dashed = next((word for word in arguments[1:] if word.startswith("-") and os.path.lexists(word)), None)
    meant = f"if you mean the file `{dashed}`, write `./{dashed}`" if dashed else None
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:
        command = f"{PROGRAM} {name}" if name else PROGRAM
        text = error.format_message().rstrip(".")
        raise ConfigError(text[:1].lower() + text[1:], hint=meant or f"see `{command} --help`") from error
    except ConfigError as error:
        # `-name.txt` is also the option `-n` with a value
        error.hint = meant or error.hint
        raise
    if isinstance(code, int) and code != 0:
        raise SystemExit(code)


def _unknown(name: str, known: list[str]) -> ConfigError:
    from difflib import get_close_matches

    text = name.strip().lower().replace("_", "-")
    near = [full for full in known if text and full.startswith(text)]
    near = near or get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"did you mean `{PROGRAM} {near[0]}`?" if near else f"see `{PROGRAM} --help`; verbs: {', '.join(known)}"
    return ConfigError(f"unknown command `{name}`", hint=hint)


def build(name: str | None, verbs: list[str], commands: list[str]) -> "typer.Typer":
    """The Typer app in which command `name` is real and all others are only names with a description."""
    from rich.markup import escape

    from langadapt.cli.typeless import App, Group

    app = App(
        name=PROGRAM,
        cls=Group,
        help=escape(ABOUT),
        epilog=f"Exit codes: {', '.join(EXIT_CODES)}.\n\n`{PROGRAM} --version` prints the version.",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    for verb in verbs:
        if verb == name:
            from langadapt.cli.bind import register_verb

            register_verb(app, verb)
        else:
            app.command(verb, help=escape(listing.summary("langadapt.steps", verb)), rich_help_panel="Verbs")(_stub)
    for command in commands:
        if command == name:
            from langadapt.cli.commands import register_command

            register_command(app, command)
        else:
            text = escape(listing.summary("langadapt.cli", command))
            app.command(command, help=text, rich_help_panel="Commands")(_stub)
    return app


def _root() -> None:
    """The options of the program itself: --version and --help."""


def _stub() -> None:
    """Stands for a command that was not asked for."""
