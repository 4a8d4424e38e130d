"""What commands do, and with which exit code they end."""

import fcntl
import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from langadapt.core import verb
from langadapt.core.listing import method_rooms
from langadapt.core.registry import method_names
from langadapt.core.types import Estimate
from tests.cli.conftest import Run, environment


def tree(folder: Path) -> dict[str, str]:
    """Every file with its digest and time, every folder."""
    return {
        str(path.relative_to(folder)): (
            f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}" if path.is_file() else "folder"
        )
        for path in folder.rglob("*")
    }


OUT = ("--out", "c")
FAILURES: list[tuple[int, str, tuple[str, ...]]] = [
    (2, "unknown command `count-word`|did you mean `langadapt count-words`", ("count-word", "a.txt")),
    (2, "no such option: --tpo|langadapt count-words --help", ("count-words", "a.txt", *OUT, "--tpo", "3")),
    (2, "no such option: --foo", ("--foo",)),
    (2, "missing input: TEXT...|langadapt count-words TEXT... --out DIR|langadapt init", ("count-words",)),
    (2, "missing option: --out", ("count-words", "a.txt")),
    (2, "unknown key `labl`  (-o labl=x)|did you mean `label`", ("count-words", "a.txt", *OUT, "-o", "labl=x")),
    (2, "`many` is not a count", ("count-words", "a.txt", *OUT, "--top", "many")),
    (2, "'keep' or 'lower'|(--case)", ("count-words", "a.txt", *OUT, "--case", "upper")),
    (2, "`Greek` is not a language code; did you mean `el`", ("count-words", "a.txt", *OUT, "--lang", "Greek")),
    (2, "not of the form NAME=VALUE|(--weight)|`en=0.5`", ("count-words", "a.txt", *OUT, "--weight", "0.5")),
    (2, "the name `a` is given twice", ("count-words", "a.txt", *OUT, "--weight", "a=1", "--weight", "a=2")),
    (2, "cannot read `no.yaml`", ("count-words", "a.txt", *OUT, "-c", "no.yaml")),
    (2, "cannot list `verb`|langadapt list verbs", ("list", "verb")),
    (2, "unknown method `subtoken-men`|langadapt show method subtoken-mean", ("show", "method", "subtoken-men")),
    (3, "`none.txt` does not exist", ("count-words", "none.txt", *OUT)),
    (3, "bad data  (a.txt:3)|hint: fix the line", ("count-words", "a.txt", *OUT, "-o", "fail=data")),
    (3, "not an artifact", ("show", "a.txt")),
    (3, "`nothing` does not exist", ("show", "nothing")),
    (3, "`mean` does not exist|langadapt show method mean", ("show", "mean")),
    (5, "out of memory", ("count-words", "a.txt", *OUT, "-o", "fail=memory")),
    (5, "no space left", ("count-words", "a.txt", *OUT, "-o", "fail=disk")),
    (6, "unsafe", ("count-words", "a.txt", *OUT, "-o", "fail=safety")),
    (1, "internal error: KeyError|--debug", ("count-words", "a.txt", *OUT, "-o", "fail=bug")),
    (75, "stopped by SIGTERM|run the same command again", ("count-words", "a.txt", *OUT, "-o", "fail=signal")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "words", "arguments"), FAILURES, ids=lambda value: str(value)[:40])
def test_failures(call: Run, tmp_path: Path, code: int, words: str, arguments: tuple[str, ...]) -> None:
    done = call(*arguments)
    assert done.code == code, done.err
    for part in words.split("|"):
        assert part in done.err
    assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1
    assert done.out == "", "nothing on stdout when a command fails"
    assert "Traceback" not in done.err
    assert not (tmp_path / "c").exists() and not list(tmp_path.glob("c.tmp*"))


def test_debug_shows_the_traceback(call: Run) -> None:
    done = call("count-words", "a.txt", *OUT, "-o", "fail=bug", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err and "KeyError: 'a bug'" in done.err


def test_refused_output_and_its_ways_out(call: Run, tmp_path: Path) -> None:
    assert call("count-words", "a.txt", *OUT).code == 0
    refused = call("count-words", "a.txt", *OUT, "-n", "2")
    assert refused.code == 4
    assert "other settings" in refused.err and "--overwrite" in refused.err
    assert call("count-words", "a.txt", *OUT, "-n", "2", "--overwrite").code == 0
    assert list(tmp_path.glob("c.old-*"))
    (tmp_path / "mine").mkdir()
    assert call("count-words", "a.txt", "--out", "mine", "--overwrite").code == 4, "a foreign folder is never touched"


def test_held_output(call: Run, tmp_path: Path) -> None:
    with (tmp_path / "c.lock").open("w") as file:
        file.write("process 7 on elsewhere")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        for extra in ((), ("--dry-run",)):
            done = call("count-words", "a.txt", *OUT, *extra)
            assert done.code == 4
            assert "process 7 on elsewhere" in done.err


def test_values_of_all_sources_and_their_origins(call: Run, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("top: 5k\nlang: no\nlabel: nan\n", encoding="utf-8")
    arguments = ("count-words", "a.txt", "-c", "s.yaml", "-o", "lang=nan", "--top", "7", "--no-sort",
                 "--weight", "no=0.5",
                 "--skip-word", "null", "--skip-word", "1", "--set", "x=a.txt", "--print-config")  # fmt: skip
    done = call(*arguments)
    assert done.code == 0
    lines = {line.partition("  #")[0].strip(): line.partition("  # ")[2] for line in done.out.splitlines()}
    expected = {
        "text: [a.txt]": "from TEXT...", "top: 7": "from --top", "lang: nan": "from -o lang=nan",
        "label: nan": "from s.yaml:3", "sort: false": "from --no-sort", "case: keep": "default",
        "no: 0.5": "from --weight",
        'skip_words: ["null", "1"]': "from --skip-word", "x: a.txt": "from --set", "seed: 0": "default",
    }  # fmt: skip
    assert {key: lines.get(key) for key in expected} == expected
    (tmp_path / "printed.yaml").write_text(done.out, encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [tmp_path / name for name in ("a.txt", "printed.yaml", "s.yaml")]
    direct = json.loads(call(*arguments[:-1], "--out", "c", "--json").out)
    printed = json.loads(call("count-words", "-c", "printed.yaml", "--out", "d", "--json").out)
    assert printed["fingerprint"] == direct["fingerprint"], "a printed config is the same run"


@pytest.mark.parametrize(("code", "short"), [("no", "no"), ("nan", "nan"), ("zh-Hant", "zh-Hant"), ("hun_Latn", "hu")])
def test_language_codes_survive(call: Run, tmp_path: Path, code: str, short: str) -> None:
    (tmp_path / "s.yaml").write_text(f"lang: {code}\n", encoding="utf-8")
    for number, given in enumerate((("--lang", code), ("-o", f"lang={code}"), ("-c", "s.yaml"))):
        place = f"c{number}"
        assert json.loads(call("count-words", "a.txt", *given, "--out", place, "--json").out)["facts"]["lang"] == short
        assert json.loads((tmp_path / place / "artifact.json").read_text())["config"]["lang"] == short
        assert f"\nsetting lang\t{short}\n" in call("show", place).out


def test_faults_in_a_settings_file_have_a_line(call: Run, tmp_path: Path) -> None:
    for text, where in (("top: 5\ntpo: 6\n", "s.yaml:2"), ("top: 5\ntop: 6\n", "s.yaml:2"), ("a: &x 1\n", "s.yaml:1"),
                        ("top: [1\nb", "s.yaml:"), ("\ntop: no\n", "s.yaml:2")):  # fmt: skip
        (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
        done = call("count-words", "a.txt", *OUT, "-c", "s.yaml")
        assert done.code == 2
        assert where in done.err


def test_a_price_on_a_busy_machine_says_so(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single verb as a recipe: what is not timed is priced for a quiet machine."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (7.04, 3.0, 1.0))
    arguments = ("count-words", "a.txt", *OUT, "--dry-run")
    assert "\nbusy now\tload 7.0 on 2 core(s); the time is that of a quiet machine\n" in call(*arguments).out
    assert json.loads(call(*arguments, "--json").out)["rows"]["busy now"].startswith("load 7.0")
    step = verb.load
    timed = (("timed while busy", "load 7.0"),)
    priced = lambda config, inputs: Estimate(1.0, rows=timed, timed=True)  # noqa: E731
    monkeypatch.setattr(verb, "load", lambda name: replace(step(name), estimate=priced))
    monkeypatch.setattr("langadapt.cli.bind.load", verb.load)
    assert [line.split("\t")[0] for line in call(*arguments).out.splitlines()][:2] == ["timed while busy", "time"]


def test_dry_run_leaves_the_tree_as_it_was(call: Run, tmp_path: Path) -> None:
    before = tree(tmp_path)
    done = call("count-words", "a.txt", "--out", "deep/er/c", "--dry-run", "--json")
    found = json.loads(done.out)
    assert (done.code, found["would_run"], found["state"], found["memory_bytes"]) == (0, True, "new", 5_000_000)
    assert tree(tmp_path) == before
    assert call("count-words", "a.txt", *OUT).code == 0
    before = tree(tmp_path)
    assert json.loads(call("count-words", "a.txt", *OUT, "--dry-run", "--json").out)["state"] == "up to date"
    changed = call("count-words", "a.txt", *OUT, "-n", "3", "--dry-run", "--json")
    assert (changed.code, json.loads(changed.out)["would_run"]) == (4, False)
    aside = call("count-words", "a.txt", *OUT, "-n", "3", "--dry-run", "--overwrite", "--json")
    assert (aside.code, json.loads(aside.out)["state"]) == (0, "new")
    assert tree(tmp_path) == before


def test_dry_run_ends_as_the_run_would(call: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    for extra in ((), ("--dry-run",)):
        assert call("count-words", "none.txt", *OUT, *extra).code == 3
        assert call("count-words", "empty.txt", *OUT, *extra).code == 3
        assert call("count-words", "a.txt", "--out", "a.txt/c", *extra).code == 4
    huge = call("count-words", "a.txt", *OUT, "--dry-run", "-o", "label=huge")
    assert huge.code == 5
    assert "of disk" in huge.err


def test_text_from_stdin(call: Run, tmp_path: Path) -> None:
    done = call("count-words", "-", *OUT, "--json", stdin="egy kettő".encode())
    assert json.loads(done.out)["facts"]["words"] == 2
    (tmp_path / "b.txt").write_text("egy kettő", encoding="utf-8")
    same = call("count-words", "b.txt", "--out", "d", "--json")
    assert json.loads(done.out)["fingerprint"] == json.loads(same.out)["fingerprint"], (
        "where text came from is no input"
    )
    assert call("count-words", "-", "-", *OUT, stdin=b"a").code == 2
    empty = call("count-words", "-", "--out", "e")
    assert (empty.code, "stdin is empty" in empty.err) == (3, True)


def test_file_names_of_all_kinds(call: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("a b.txt", "árvíz.txt", "-dash.txt", "new\nline.txt", "[hu].txt", "$(id).txt")):
        (tmp_path / name).write_text("egy", encoding="utf-8")
        done = call("count-words", "--out", f"c{number}", "--", name)
        assert done.code == 0, done.err


def test_show_and_verify(call: Run, tmp_path: Path) -> None:
    call("count-words", "a.txt", *OUT)
    rows = dict(line.split("\t")[:2] for line in call("show", "c", "--verify").out.splitlines())
    assert (rows["kind"], rows["made by"], rows["fact types"]) == ("counts", "count-words (schema 1)", "3")
    assert "all as they were written" in rows["files"]
    found = json.loads(call("show", "c", "--json").out)
    assert found["manifest"]["facts"]["words"] == 4
    counts = tmp_path / "c" / "counts.json"
    counts.write_bytes(counts.read_bytes().replace(b"1", b"2"))
    assert call("show", "c").code == 0
    changed = call("show", "c", "--verify")
    assert (changed.code, changed.out) == (3, "")
    assert "was changed" in changed.err


def test_show_parts_settings_from_facts_and_leaves_out_what_is_empty(call: Run, tmp_path: Path) -> None:
    call("count-words", "a.txt", *OUT, "--case", "lower")
    lines = call("show", "c").out.splitlines()
    keys = [line.split("\t")[0] for line in lines]
    assert len(set(keys)) == len(keys)
    assert {"setting case", "setting fail", "fact words"} <= set(keys) and "setting seed" in keys
    # what nobody set: a language, a limit, weights by name
    assert not {"setting lang", "setting max_bytes", "setting weights", "fact lang", "input sets"} & set(keys)
    drawn = call("show", "c", "--table").out
    assert drawn.index("settings") < drawn.index("case") < drawn.index("facts") < drawn.index("types")


def test_show_does_not_lay_the_table_of_this_version_over_what_another_one_made(
    call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("count-words", "a.txt", *OUT)
    assert "\nwords\t4\n" in call("show", "c").out
    monkeypatch.setattr(verb, "load", lambda name, load=verb.load: replace(load(name), schema=2))
    older = call("show", "c")
    assert older.code == 0 and "fact words\t4" in older.out and "\nwords\t" not in older.out


def test_show_method(call: Run) -> None:
    rows = dict(line.split("\t") for line in call("show", "method", "subtoken-mean").out.splitlines())
    assert rows["room"] == "embed" and rows["source"]
    found = json.loads(call("show", "method", "subtoken-mean", "--json").out)
    assert found["methods"][0]["options"]
    for name in {known for room in method_rooms() for known in method_names(room)}:
        done = call("show", "method", name, "--json")
        assert done.code == 0, done.err
        for option in (option for one in json.loads(done.out)["methods"] for option in one["options"].values()):
            assert option["help"] and ("default" in option) != option.get("required", False)
    assert "[required]" in call("show", "method", "peft").out


def test_version(call: Run) -> None:
    import langadapt

    assert call("--version").out == f"langadapt {langadapt.__version__}\n"


def test_a_file_that_looks_like_an_option(call: Run, tmp_path: Path) -> None:
    for name in ("-name.txt", "-other.txt", "-text.txt"):  # `-n` and `-o` are options that take a value
        (tmp_path / name).write_text("egy", encoding="utf-8")
        done = call("count-words", name, *OUT)
        assert done.code == 2 and f"if you mean the file `{name}`, write `./{name}`" in done.err
    assert call("count-words", *OUT, "--", "-name.txt").code == 0
    assert "see `langadapt count-words --help`" in call("count-words", "-txt", *OUT).err


@pytest.mark.parametrize(("name", "said"), [("~/x", "mkdir ./~"), ("~", "$HOME"), ("x" * 231, "shorter"),
                                            ("ő" * 116, "more than 230 bytes")])  # fmt: skip
def test_names_that_a_result_should_not_have(call: Run, tmp_path: Path, name: str, said: str) -> None:
    """`--out=~/x` is not replaced by bash; a long name would be found too long when an old result is moved aside."""
    for extra in ((), ("--dry-run",)):
        done = call("count-words", "a.txt", f"--out={name}", *extra)
        assert (done.code, said in done.err) == (2, True), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    if name[0] != "~":
        for seed in ("0", "1"):
            assert call("count-words", "a.txt", "--out", name[:115], "--seed", seed, "--overwrite").code == 0


def test_interrupt_before_the_work_begins(tmp_path: Path) -> None:
    code = (
        # a shell that starts the tests in the background makes them ignore Ctrl-C
        "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom langadapt.cli import app\n"
        "app._dispatch = lambda arguments: os.kill(os.getpid(), signal.SIGINT)\napp.main(['list'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, b"", b"")


def test_secrets_of_the_environment_appear_nowhere(call: Run, tmp_path: Path) -> None:
    for extra in ((), ("-o", "fail=bug", "--debug")):
        done = call("count-words", "a.txt", "--out", f"c{len(extra)}", *extra, HF_TOKEN="hf_verysecret")
        assert "verysecret" not in done.out + done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()]
