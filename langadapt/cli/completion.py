"""Complete words with the tab key: print the script for bash, zsh or fish, or install it.

It knows verbs, flags, their choices, methods, languages, steps of the recipe here, and artifact folders by kind.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core.errors import ConfigError
from langadapt.core.io import replace_durably

Shell = Literal["bash", "zsh", "fish"]

# bash replaces the part of a word behind `=` or `:` ($2); `__complete` is told both, see `cli/complete.py`.
BASH = r"""# langadapt completion for bash
_langadapt() {
    local also value line
    COMPREPLY=()
    {
        IFS= read -r also
        while IFS= read -r line; do
            value=${line%%$'\t'*}
            COMPREPLY+=("$value")
        done
    } < <(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT "$1" __complete bash "$2" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace; fi
    case $also in
        files) compopt -o filenames; while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$2") ;;
        folders) compopt -o filenames; while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$2") ;;
    esac
}
complete -F _langadapt langadapt
"""
ZSH = r"""#compdef langadapt
# langadapt completion for zsh
_langadapt() {
    local also value text line
    local -a lines plain open shown_plain shown_open
    lines=("${(@f)$("${words[1]}" __complete zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    also=$lines[1]
    shift lines
    for line in $lines; do
        value=${line%%$'\t'*}
        text=${line#*$'\t'}
        [[ -n $text ]] && text="$value  -- $text" || text=$value
        if [[ $value == *[=.] ]]; then open+=("$value"); shown_open+=("$text")
        else plain+=("$value"); shown_plain+=("$text"); fi
    done
    (( ${#plain} )) && compadd -l -d shown_plain -- $plain
    (( ${#open} )) && compadd -l -S '' -d shown_open -- $open
    [[ $also == files ]] && _files
    [[ $also == folders ]] && _files -/
    return 0
}
if [[ $funcstack[1] == _langadapt ]]; then _langadapt "$@"; else compdef _langadapt langadapt; fi
"""
FISH = r"""# langadapt completion for fish
function __langadapt_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($before[1] __complete fish $before "$current" 2>/dev/null)
    printf '%s\n' $lines[2..-1]
    switch "$lines[1]"
        case files
            __fish_complete_path "$current"
        case folders
            __fish_complete_directories "$current"
    end
end
complete -c langadapt -e
complete -c langadapt -f -a '(__langadapt_complete)'
"""
SCRIPTS: dict[Shell, str] = {"bash": BASH, "zsh": ZSH, "fish": FISH}
_ZSH_NOTE = "add to ~/.zshrc, before compinit: fpath=({} $fpath)"


def register(app: typer.Typer) -> None:
    """Add `langadapt completion`."""
    app.command("completion", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(completion))


EXAMPLES = "Examples:\n\nlangadapt completion --install\n\nlangadapt completion bash"


def completion(
    shell: Annotated[
        str | None,
        typer.Argument(
            metavar="[SHELL]", help="bash, zsh or fish; by default that of $SHELL.",
            autocompletion=lambda: list(get_args(Shell)),
        ),
    ] = None,
    install: Annotated[
        bool, switch("--install", help="Write it where the shell looks for it.", panel="Output")
    ] = False,
) -> None:  # fmt: skip
    """Print or install the script."""
    name = (shell or Path(os.environ.get("SHELL", "")).name).lower()
    if name not in SCRIPTS:
        known = ", ".join(SCRIPTS)
        raise ConfigError(f"`{name}` is none of the shells {known}", hint="say which: langadapt completion bash")
    chosen: Shell = name
    if not install:
        data = {"schema": "langadapt/completion/1", "shell": chosen, "script": SCRIPTS[chosen]}
        screen.emit(data, lines=SCRIPTS[chosen].rstrip("\n").split("\n"))
        return
    place = target(chosen)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(place, SCRIPTS[chosen])
    except OSError as error:
        raise ConfigError(
            f"cannot write `{place}`: {error.strerror}",
            hint=f"print it and put it where you can: langadapt completion {chosen}",
        ) from error
    screen.say("it takes effect in the next shell" + (f"; {_ZSH_NOTE.format(place.parent)}" if chosen == "zsh" else ""))
    screen.emit({"schema": "langadapt/completion/1", "shell": chosen, "path": str(place)}, path=place,
                lines=(f"wrote {place}",))  # fmt: skip


def target(shell: Shell) -> Path:
    """The file that the shell reads by itself; ConfigError where there is no home folder."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigError("there is no home folder (HOME is not set)", hint=f"langadapt completion {shell}") from error
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "bash":
        return data / "bash-completion" / "completions" / "langadapt"
    return (
        data / "zsh" / "site-functions" / "_langadapt" if shell == "zsh" else config / "fish/completions/langadapt.fish"
    )
