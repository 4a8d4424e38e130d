"""The executable: finds the command that was asked for, imports that one only, and turns errors into exit codes."""

import errno
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from langadapt.cli.output import prepare_streams, screen
from langadapt.core import listing
from langadapt.core.errors import ConfigError, LangadaptError, ResourceError

if TYPE_CHECKING:
    import typer

PROGRAM = "langadapt"
COMPLETION = "_LANGADAPT_COMPLETE"
# May stand before the verb as well; they take no value, so that moving them is safe.
MOVABLE = ("--json", "-q", "--quiet", "-v", "--verbose", "--debug", "--no-color")
ABOUT = "Adapt language models to new languages: vocabulary, embeddings, continued pretraining, honest evaluation."
CLOSED_PIPE = 141
EXIT_CODES = (
    "0 done or up to date", "1 failed", "2 usage or config", "3 bad input", "4 output exists or is held",
    "5 resources", "6 refused for safety", "75 stopped, run again to go on", "130/143 interrupted", "141 closed pipe",
)  # fmt: skip


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command; always ends in SystemExit with one of the exit codes of docs/cli.md."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _fill_streams()
    prepare_streams()
    screen.debug = "--debug" in arguments
    if not sys.stdout.isatty() or "--no-color" in arguments or os.environ.get("NO_COLOR"):
        # Typer writes colours into pipes when it sees GITHUB_ACTIONS or FORCE_COLOR
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    with _Guard():
        _dispatch(arguments)
        sys.stdout.flush()
    raise SystemExit(0)


def _fill_streams() -> None:
    """A closed stdin, stdout or stderr (`>&-`) becomes /dev/null: the next file opened would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))


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
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(CLOSED_PIPE) from None
        if isinstance(error, SystemExit):
            return
        if screen.debug and not isinstance(error, KeyboardInterrupt):
            import traceback

            sys.stderr.write("".join(traceback.format_exception(error)))
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
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
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
    moved = []
    while arguments and arguments[0] in MOVABLE:
        moved.append(arguments.pop(0))
    if arguments and arguments[0] in ("--version", "-V"):
        import langadapt

        screen.raw(f"{PROGRAM} {langadapt.__version__}")
        return
    words = arguments
    if COMPLETION in os.environ:
        words = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")).split()[1:]
    name = words[0] if words and not words[0].startswith("-") else None
    verbs, commands = listing.verb_names(), listing.command_names()
    if name is not None and name not in verbs + commands and COMPLETION not in os.environ:
        raise _unknown(name, verbs + commands)
    if not arguments:
        arguments = ["--help"]
    app = build(name, verbs, commands)
    _run(app, arguments[:1] + moved + arguments[1:], name)


def _run(app: "typer.Typer", arguments: list[str], name: str | None) -> None:
    from typer.exceptions import TyperException

    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:
        command = f"{PROGRAM} {name}" if name else PROGRAM
        text = error.format_message().rstrip(".")
        raise ConfigError(text[:1].lower() + text[1:], hint=f"see `{command} --help`") from error
    if isinstance(code, int) and code != 0:
        raise SystemExit(code)


def _unknown(name: str, known: list[str]) -> ConfigError:
    from difflib import get_close_matches

    near = get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f"did you mean `{PROGRAM} {near[0]}`?" if near else f"see `{PROGRAM} --help`; verbs: {', '.join(known)}"
    return ConfigError(f"unknown command `{name}`", hint=hint)


def build(name: str | None, verbs: list[str], commands: list[str]) -> "typer.Typer":
    """The Typer app in which command `name` is real and all others are only names with a description."""
    import typer
    from rich.markup import escape

    app = typer.Typer(
        name=PROGRAM,
        help=escape(ABOUT),
        epilog="\n\n".join([f"Exit codes: {', '.join(EXIT_CODES)}."]),
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
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
            register_command(app, command)
        else:
            text = escape(listing.summary("langadapt.cli", command))
            app.command(command, help=text, rich_help_panel="Commands")(_stub)
    return app


def register_command(app: "typer.Typer", command: str) -> None:
    """Import the file of one command and let it add itself to the app."""
    import importlib

    stem = command.replace("-", "_")
    if not (listing.folder("langadapt.cli") / f"{stem}.py").is_file():
        stem += "_"  # `list_.py`: the plain name would hide a built-in
    importlib.import_module(f"langadapt.cli.{stem}").register(app)


def _root() -> None:
    """The options of the program itself: --version, --help and completion."""


def _stub() -> None:
    """Stands for a command that was not asked for."""
