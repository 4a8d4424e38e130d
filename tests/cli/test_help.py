"""Help: fast, complete, made from the declaration."""

import subprocess
import sys

import pytest

from langadapt.core.listing import command_names
from tests.cli.conftest import Run, environment

HEAVY = {"torch", "transformers", "tokenizers", "numpy", "datasets", "safetensors", "fasttext", "jinja2", "gguf"}
SHOW_MODULES = (
    "import sys\nfrom langadapt.cli.app import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
    "    sys.stderr.write('\\n'.join(name for name in sys.modules if '.' not in name))"
)


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES, *arguments], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == 0
    return set(done.stderr.split())


def test_top_level_help_imports_nothing_heavy() -> None:
    assert not imported("--help") & (HEAVY | {"pydantic", "ruamel"})
    assert not imported("--version") & (HEAVY | {"pydantic", "typer", "rich"})


@pytest.mark.parametrize("command", command_names())
def test_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    assert not imported(command, "--help") & HEAVY


def test_help_of_every_verb_imports_no_model_library() -> None:
    from langadapt.core.listing import verb_names

    for verb in verb_names():
        assert not imported(verb, "--help") & (HEAVY - {"numpy"}), verb


def test_top_level_help_lists_verbs_commands_and_exit_codes(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    assert "Count the words of text files [a toy]" in done.out
    for command in command_names():
        assert f" {command} " in done.out
    assert "Exit codes: 0 done" in done.out
    assert "--version" in done.out
    assert run().out == done.out, "no arguments is help"
    assert run("-h").out == done.out


def test_help_of_a_verb_shows_inputs_flags_defaults_units_and_examples(run: Run) -> None:
    text = " ".join(run("count-words", "--help", COLUMNS="160").out.split())
    for part in (
        "[TEXT...]", "--control PATH", "--set NAME=PATH", "--top -n COUNT", "e.g. 4000, 4k or 4Ki", "[default: 1,000]",
        "How many words to keep [at most].", "--case keep|lower", "--sort --no-sort", "--weight NAME=NUMBER",
        "--skip-word TEXT", "--max-bytes BYTES", "--seed INTEGER", "--out DIR", "--config -c FILE", "-o KEY=VALUE",
        "--dry-run", "--overwrite", "--print-config", "--json", "--no-color", "Examples:",
        "langadapt count-words a.txt --out counts", "It knows nothing of models.",
    ):  # fmt: skip
        assert part in text, part
    assert "--label" not in text, "what is not marked as a flag is reached by -o"


@pytest.mark.parametrize("words", [(), ("diagnose",), ("tokenizer",), ("count-words",)])
def test_no_type_of_python_is_shown(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help", COLUMNS="120").out
    assert "--help" in text and "<bool>" not in text and "<str>" not in text and "<list" not in text
