"""Completion: what the engine offers, and what real shells make of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from langadapt.cli import complete
from langadapt.cli.completion import SCRIPTS
from tests.cli.conftest import Run, environment
from tests.cli.test_help import HEAVY, imported

HOSTILE = "ev$(touch pwned)`touch pwned`"


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with two corpora (one of a hostile name), a model, and an output that only a fingerprint names."""
    monkeypatch.chdir(tmp_path)
    kinds = {"hu data": "corpus", HOSTILE: "corpus", "m": "model", "steps/one-0123456789": "corpus"}
    for name, kind in kinds.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "artifact.json").write_text(json.dumps({"kind": kind}))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "artifact.json").write_text("[[[")
    (tmp_path / "langadapt.yaml").write_text("vars: {text: null}\nsteps:\n  one: {use: prepare}\n  base: {use: cpt}\n")
    return tmp_path


def offered(*words: str) -> set[str]:
    """Candidates for the last word."""
    return {line.partition("\t")[0] for line in complete.main(["fish", "langadapt", *words])[1:]}


def test_what_is_offered(folder: Path) -> None:
    assert offered("pre") == {"prepare"}
    assert {"show", "cpt"} <= offered("--json", "")
    assert offered("nothing", "") == set()
    assert "full" in offered("cpt", "--strategy", "")
    assert "--strategy=full" in offered("cpt", "--strategy=f")
    assert "mean" in offered("init-embeddings", "--method", "")
    assert "ssu" in offered("select", "--method", "") and "mean" not in offered("select", "--method", "")
    assert offered("cpt", "--compute", "") == {"auto", "fp32", "bf16"}
    assert "--compute" not in offered("cpt", "--compute", "fp32", "--"), "an option that was given"
    assert "--set" in offered("evaluate", "--set", "hu=m", "--"), "a repeatable one"
    assert offered("prepare", "--lang", "hu") == {"hu"}
    assert offered("list", "") == {"verbs", "methods", "langs", "recipes"}
    assert "mean" in offered("show", "method", "")
    assert offered("completion", "") == set(SCRIPTS)
    assert offered("list", "--progress", "") == {"auto", "bar", "plain", "json", "none"}
    assert "learning_rate=" in offered("cpt", "-o", "learn")


def test_what_is_offered_of_this_folder(folder: Path) -> None:
    assert offered("cpt", "") == {"m"}, "the first input is a model"
    assert offered("try", "") == offered("try", "m", "") == {"m", "one", "base"}, "models and steps"
    assert offered("tokenizer", "") == {"stats", "compare", "encode", "decode"}
    assert offered("tokenizer", "stats", "m", "") == {"m", "one", "base"}
    assert offered("verify", "") == {"artifact", "vocab", "shield"}
    assert "m" in offered("verify", "vocab", "")
    assert offered("evaluate", "--set", "hu=") == {"hu=hu data", f"hu={HOSTILE}"}
    assert offered("run", "-o", "") == {"text=", "one.", "base."}
    assert "base.learning_rate=" in offered("run", "-o", "base.learn")
    assert offered("run", "--only", "") == {"one", "base"}
    (folder / "langadapt.yaml").write_text("steps: [&x")
    assert offered("run", "-o", "") == set(), "a broken recipe is no error here"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("langadapt cpt ", (["langadapt", "cpt"], "")),
        ("langadapt cp", (["langadapt"], "cp")),
        ("langadapt show 'hu d", (["langadapt", "show"], "hu d")),
        ("langadapt show hu\\ d", (["langadapt", "show"], "hu d")),
        ("", ([], "")),
    ],
)
def test_lines_of_bash(line: str, words: tuple[list[str], str]) -> None:
    assert complete.split_line(line, str(len(line.encode()))) == words


def test_it_is_quick_to_load() -> None:
    assert not imported("__complete", "fish", "langadapt", "cpt", "--strategy", "") & (HEAVY - {"numpy"})
    assert not imported("__complete", "fish", "langadapt", "cp") & {"pydantic", "typer", "rich"}


def in_shell(shell: str, code: str, folder: Path) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    launcher = folder / "bin" / "langadapt"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m langadapt "$@"\n')
    launcher.chmod(0o755)
    more = environment(HOME=str(folder))
    more["PATH"] = f"{launcher.parent}:{more['PATH']}"
    done = subprocess.run([program, "-c", code], cwd=folder, capture_output=True, text=True, env=more, timeout=60)
    assert not (folder / "pwned").exists(), "a name of a folder was run as a command"
    assert done.stderr == ""
    return done.stdout


def test_in_bash(folder: Path) -> None:
    code = """eval "$(langadapt completion bash)"
compopt() { :; }
ask() { COMP_LINE=$1 COMP_POINT=${#1}; _langadapt langadapt "$2"; printf '<%s>' "${COMPREPLY[@]}"; echo; }
ask "langadapt cpt --strategy=fu" fu
ask "langadapt evaluate --set hu=" ""
ask "langadapt pre" pre
"""
    first, second, third = in_shell("bash", code, folder).splitlines()
    assert (first, third) == ("<full>", "<prepare>")
    assert f"<{HOSTILE}>" in second and "<hu data>" in second, "bash replaces what stands behind the `=`"


def test_in_fish(folder: Path) -> None:
    out = in_shell("fish", "langadapt completion fish | source; complete -C 'langadapt cpt --strategy fu'", folder)
    assert out.startswith("full\tTrain every weight")


def test_in_zsh(folder: Path) -> None:
    code = """compdef() { :; }; source <(langadapt completion zsh)
compadd() { print -r -- "$@[$#]"; }; _files() { :; }
words=(langadapt cpt --strategy fu); CURRENT=4; _langadapt"""
    assert in_shell("zsh", code, folder) == "full\n"


def test_install(call: Run, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "", "SHELL": "/usr/bin/fish"}
    done = call("completion", "--install", **home)
    assert done.out == f"{tmp_path}/.config/fish/completions/langadapt.fish\n"
    assert Path(done.out.strip()).read_text() == SCRIPTS["fish"]
    assert call("completion", "tcsh").code == 2
    (tmp_path / "a.txt").chmod(0o400)
    refused = call("completion", "bash", "--install", XDG_DATA_HOME=str(tmp_path / "a.txt"))
    assert refused.code == 2 and "langadapt completion bash" in refused.err
