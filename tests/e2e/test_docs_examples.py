"""Commands in README and docs: all of them parse, and the README's step-by-step session runs word for word."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langadapt.core.registry import verb_names

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GREEK = """το παλιό σπίτι είναι κοντά στο ποτάμι και τα παιδιά πηγαίνουν κάθε πρωί στο σχολείο της πόλης με τους
φίλους τους όταν ο καιρός είναι καλός αλλά το χειμώνα μένουν μέσα επειδή έξω κάνει κρύο πολύ νερό πέφτει από τον
ουρανό η μητέρα λέει ότι ο δρόμος προς το χωριό δεν έχει τελειώσει ακόμη οι άνθρωποι περιμένουν την άνοιξη"""
ENGLISH = """the old house stands by the river and the children walk to school in the morning with their friends when
the weather is good but in winter they stay inside because it is very cold and water falls from the sky the mother
says that the road to the village is not finished yet and people wait for the spring so that they can work again"""


def commands(page: Path) -> list[str]:
    """Lines inside code blocks that start with `langadapt` (a `$ ` before it and a comment after it are left out).

    A line that ends with a backslash goes on in the next one.
    """
    found = []
    inside = False
    for line in re.sub(r" \\\n\s*", " ", page.read_text(encoding="utf-8")).splitlines():
        if line.startswith("```"):
            inside = not inside
        text = line.strip().removeprefix("$ ")
        if (inside or line.startswith("    ")) and text.startswith("langadapt "):
            found.append(re.split(r"\s{2,}#", text)[0])
    return found


EXAMPLES = [(page.name, text) for page in PAGES for text in commands(page) if page.name != "cli.md"]


def call(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "langadapt", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_there_are_examples_of_every_verb() -> None:
    shown = {text.split()[1] for _, text in EXAMPLES}
    assert set(verb_names()) <= shown


@pytest.mark.parametrize(("page", "text"), EXAMPLES, ids=[f"{page}: {text[:60]}" for page, text in EXAMPLES])
def test_every_example_is_a_valid_command(page: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from langadapt.cli.app import main

    words = shlex.split(text.split("||")[0].split("&&")[0])[1:]
    own = words[0] in verb_names()
    if own and not [word for word in words[1:] if not word.startswith("-")]:
        pytest.skip("a workspace command: run by the workspace tests")
    with pytest.raises(SystemExit) as left:
        main([*words, "--print-config"] if own else [words[0], "--help"])
    captured = capsys.readouterr()
    assert left.value.code in (0, None), captured.err
    if not own:  # options of the commands that are not verbs: at least their names exist
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            assert flag in captured.out, f"{flag} in {page}"


def sentences(words: str, count: int, seed: int) -> list[str]:
    """Real words in random order: enough for language identification, and nothing to be copied from anywhere."""
    random = np.random.Generator(np.random.Philox(key=seed))
    known = words.split()
    return [" ".join(known[int(at)] for at in random.integers(len(known), size=40)) for _ in range(count)]


def write_texts(folder: Path) -> None:
    (folder / "greek.txt").write_text("\n".join(sentences(GREEK, 400, 5)) + "\n", encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in sentences(ENGLISH, 300, 6)]
    (folder / "english.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.timeout(300)
def test_the_readme_session_runs_word_for_word(tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    write_texts(tmp_path)
    session = [text for text in commands(ROOT / "README.md") if text.split()[1] in verb_names()]
    assert [text.split()[1] for text in session] == [
        "prepare", "prepare", "extend-vocab", "init-embeddings", "mix", "cpt", "evaluate", "report",
    ]  # fmt: skip
    for text in session:
        done = call(shlex.split(text)[1:], tmp_path)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        place = Path(done.stdout.strip())
        assert (tmp_path / place / "artifact.json").is_file(), "in a pipe, stdout is the artifact's path"
    page = (tmp_path / "work" / "report" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "Greek" in page
    again = call(shlex.split(session[-1])[1:], tmp_path)
    assert again.returncode == 0 and "up to date" in again.stderr


@pytest.mark.timeout(300)
def test_the_readme_workspace_runs(tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    write_texts(tmp_path)
    made = call(shlex.split("init my-el --lang el --text greek.txt --model ./model"), tmp_path)
    assert made.returncode == 0, made.stderr
    before = sorted(tmp_path.rglob("*"))
    dry = call(["run", "--dry-run"], tmp_path / "my-el")
    assert dry.returncode == 0, dry.stderr
    assert sorted(tmp_path.rglob("*")) == before
    part = call(["extend-vocab", "--size", "50"], tmp_path / "my-el")
    assert part.returncode == 0, part.stderr
    trained = call(["cpt", "--lang", "el", "--steps", "3"], tmp_path / "my-el")
    assert trained.returncode == 0, trained.stderr
    wrong = call(["cpt", "--lang", "fi"], tmp_path / "my-el")
    assert wrong.returncode == 2 and "el" in wrong.stderr
    rest = call(["run"], tmp_path / "my-el")
    assert rest.returncode == 0, rest.stderr
    assert (tmp_path / "my-el" / "report.html").is_file()
    state = call(["status", "--json"], tmp_path / "my-el")
    assert state.returncode == 0 and '"done"' in state.stdout


@pytest.mark.parametrize("text", [text for name in ("try", "tokenizer") for text in commands(ROOT / f"docs/{name}.md")])
def test_the_examples_of_try_and_tokenizer_run(
    text: str,
    tmp_path: Path,
    tiny: Path,
    tiny_untied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from langadapt.cli.app import main

    for name, place in (("BASE", tiny), ("ADAPTED", tiny_untied), ("NEW", tiny_untied)):
        (tmp_path / name).symlink_to(place)
    for name in ("prompts.txt", "hu.txt"):
        (tmp_path / name).write_text("egy\nkettő\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words, _, given = text.partition(" < ")
    if given:
        monkeypatch.setattr(sys, "stdin", (tmp_path / given).open(encoding="utf-8"))
    with pytest.raises(SystemExit) as left:
        main(shlex.split(words.partition(" | ")[0])[1:])
    captured = capsys.readouterr()
    assert left.value.code in (0, None), captured.err
    assert captured.out.strip()


def test_the_examples_of_compare_embeddings_run(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langadapt.cli.app import main
    from tests.fixtures.extended import extended_tokenizer

    (tmp_path / "MODEL").symlink_to(tiny)
    extended_tokenizer(tiny, tmp_path / "runs" / "tokenizer")
    (tmp_path / "data").mkdir()
    for lang, words in (("hu", GREEK), ("en", ENGLISH)):  # 2 % of the lines are held out
        (tmp_path / "data" / lang).write_text("\n".join(sentences(words, 400, 7)) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    examples = commands(ROOT / "docs" / "compare-embeddings.md")
    assert len(examples) == 2
    for text in examples:
        with pytest.raises(SystemExit) as left:
            main([*shlex.split(text)[1:], "--target-bytes", "300", "--source-bytes", "300", "--json"])
        captured = capsys.readouterr()
        assert left.value.code in (0, None), captured.err
        facts = json.loads(captured.out)["facts"]
        assert facts["pick"] in facts["bits_per_byte"]
