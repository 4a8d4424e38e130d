"""The contract of exit codes: for each a command that ends so, and where the other commands that do are tested.

- 0 to 6 and 75 with a toy verb: test_commands.py. 75, 130 and 143 on a terminal: test_interrupts.py.
- 75 and 143 while training, running a recipe, committing: tests/faults/test_train_faults.py, test_recipe_faults.py,
  test_chain_faults.py. 130 before the work begins: test_commands.py.
- 141: test_output.py.

The table below adds what only toys did: the commands of langadapt themselves.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from langadapt.cli.app import EXIT_CODES
from tests.cli.conftest import ROOT, environment

PREPARE = ("prepare", "a.txt", "--lang", "hu", "--out", "made", "-o", "min_lang_probability=0")
# code, what stderr says, command
REAL: list[tuple[int, str, tuple[str, ...]]] = [
    (0, "", ("show", "method", "mean")),
    (1, "Input/output error", ("prepare", "/proc/self/mem", "--lang", "hu", "--out", "other")),
    (2, "did you mean", ("prepare", "a.txt", "--lang", "Greek", "--out", "other")),
    (2, "missing input: MODEL; `hu=a.txt` stands in its place", ("calibrate", "hu=a.txt", "--out", "other")),
    (2, "missing input: NAME=CORPUS...", ("calibrate", "base", "--out", "other")),
    (3, "not an artifact", ("show", "a.txt")),
    (4, "--overwrite", (*PREPARE, "--seed", "7")),
    (5, "no space left", ("list", "verbs")),
    (6, "safetensors", ("try", "pickled", "egy")),
    (75, "run the same command again", ("prepare", "a.txt", "--lang", "hu", "--out", "other")),
    (141, "", ("list", "langs")),
]  # fmt: skip
# of the codes that need a second signal or a key
_TWICE = "tests/cli/test_interrupts.py::test_twice_with_a_bar"
_TRAINING = "tests/faults/test_train_faults.py::test_a_second_signal_ends_it_at_once_and_the_checkpoint_before_stays"
_SAVED = "tests/faults/test_train_faults.py::test_a_signal_saves_a_checkpoint_within_a_step"
ELSEWHERE = {
    "130": [_TWICE, "tests/cli/test_interrupts.py::test_ctrl_c_in_a_command_that_keeps_nothing"],
    "143": [_TWICE, _TRAINING],
    "75": ["tests/cli/test_interrupts.py::test_ctrl_c_with_a_bar", _SAVED],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, a corpus made of it, and a model whose weights are a pickle."""
    folder = tmp_path_factory.mktemp("codes")
    (folder / "a.txt").write_text("egy két három négy öt hat hét nyolc\n" * 30, encoding="utf-8")
    (folder / "pickled").mkdir()
    (folder / "pickled" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04never opened.")
    assert command(folder, PREPARE).returncode == 0
    return folder


def command(
    folder: Path, words: tuple[str, ...], stdout: int = subprocess.PIPE, **extra: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "langadapt", *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=stdout,
        stderr=subprocess.PIPE, text=True, env=environment(**extra), timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(("code", "said", "words"), REAL, ids=lambda value: str(value)[:30])
def test_a_command_that_ends_so(place: Path, code: int, said: str, words: tuple[str, ...]) -> None:
    stdout = subprocess.PIPE
    if code == 5:  # a disk without room for the result
        stdout = os.open("/dev/full", os.O_WRONLY)
    elif code == 141:
        reader, stdout = os.pipe()
        os.close(reader)
    # for 75: a batch job that is over
    done = command(place, words, stdout, **({"SLURM_JOB_END_TIME": "1"} if code == 75 else {}))
    if stdout != subprocess.PIPE:
        os.close(stdout)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (place / "other").exists()


def test_every_code_of_the_contract_has_one() -> None:
    known = {code for text in EXIT_CODES for code in text.split()[0].split("/")}
    assert known == {str(code) for code, _, _ in REAL} | set(ELSEWHERE)
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for code in known:
        assert re.search(rf"^\| ([\d /]*\b)?{code}\b[\d /]* \|", page, re.MULTILINE), code
    for name in [name for names in ELSEWHERE.values() for name in names]:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), name
