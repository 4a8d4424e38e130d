"""`langadapt diagnose` from the command line and as a function, on models with random weights."""

import json
import shlex
from pathlib import Path

import pytest

import langadapt
from langadapt.cli.app import main
from langadapt.core.errors import DataError
from tests.cli.conftest import Run
from tests.fixtures.fallback import tiny_gemma3
from tests.fixtures.tiny import tiny_corpus, tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of different families, text in two languages, sentence pairs."""
    folder = tmp_path_factory.mktemp("diagnose")
    tiny_model(folder / "one", padded_rows=8)
    tiny_gemma3(folder / "two")
    tiny_corpus(folder, "hu", 900)
    tiny_corpus(folder, "en", 60, seed=1)
    (folder / "pairs.tsv").write_text("the old house\tvaló bagol szegür\n" * 3, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No detector knows the made-up languages; a small sample; a step takes 10 ms instead of being timed."""
    monkeypatch.setattr("langadapt.corpus.langid.find_model", lambda given: None)
    monkeypatch.setattr("langadapt.corpus.survey.SAMPLE_BYTES", 24_000)
    monkeypatch.setattr("langadapt.train.cost.step_seconds", lambda shape, work, device: 0.01)


def test_two_models_as_a_person_sees_them(place: Path, call: Run) -> None:
    names = [str(place / "one"), str(place / "two")]
    texts = ["--text", str(place / "hu.jsonl"), "--source-text", str(place / "en.jsonl")]
    parallel = ["--parallel", str(place / "pairs.tsv")]
    done = call("diagnose", *names, "--lang", "hun", *texts, *parallel, "--budget", "10min", "--table", COLUMNS="80")
    assert done.code == 0, done.err
    for text in (
        "tokens per word", "bits per byte, hu", "guessing a token",
        "Which model", "Advice for one", "rows that look unused", "start from",
        "tokens, target over source", "passes over the text", "a start from nearly nothing", "and 8 spare",
    ):  # fmt: skip
        assert text in done.out, text
    commands = done.out.partition("\nnext\n")[2].splitlines()
    assert [shlex.split(line)[1] for line in commands][:2] == ["prepare", "prepare"]
    assert shlex.split(commands[-1])[1] == "evaluate"
    assert all(len(line) <= 80 for line in done.out.partition("\nnext\n")[0].splitlines())


def test_json_and_pipe(place: Path, call: Run) -> None:
    one, text = str(place / "one"), ["--lang", "hu", "--text", str(place / "hu.jsonl")]
    done = call("diagnose", one, *text, "--json")
    found = json.loads(done.out)
    assert (found["schema"], found["lang"]) == ("langadapt/diagnose/1", "hu")
    (model,) = found["models"]
    score = model["scores"]["target"]
    assert score["passages"] >= 20 and 7000 < score["bytes"] <= 8000
    # random weights know nothing: about the uniform guess
    assert score["bits_per_byte"] == pytest.approx(score["guessing"], rel=0.15)
    assert model["outlook"]["strategy"] == "full"
    assert {"verdict", "why", "command", "model"} == set(found["advice"][0])
    rows = call("diagnose", one, *text, "--no-score").out.splitlines()
    assert any(row.startswith("bytes per token\t") for row in rows)
    assert rows[-1].startswith("next\tlangadapt evaluate")


def test_the_function_says_the_same(place: Path) -> None:
    found = langadapt.diagnose(place / "one", lang="hu", text=place / "hu.jsonl", score=False, budget=3600)
    assert found.text["documents"] == 900
    assert found.models[0]["outlook"]["epochs"] <= 4.01
    assert "scores" not in found.models[0]


def test_the_commands_that_it_names_exist(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each parses with its flags; running the chain is the business of its own tests."""
    found = langadapt.diagnose(
        place / "one", lang="hu", text=place / "hu.jsonl", source_text=place / "en.jsonl", score=False
    )
    for line in found.commands:
        with pytest.raises(SystemExit) as left:
            main([*shlex.split(line)[1:], "--print-config"])
        assert left.value.code in (0, None), line
        capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such/model/at-all", "--lang", "hu", "--text", "a.txt"], 3, "no-such/model/at-all"),
        (["ONE", "--lang", "hu", "--text", "none.txt"], 3, "`none.txt` does not exist"),
        (["ONE", "--lang", "hu", "--text", "empty.txt"], 3, "holds no text"),
        (["ONE", "--lang", "el", "--text", "a.txt"], 3, "not in a script that `el` is written in"),
        (["ONE", "--lang", "hungarian", "--text", "a.txt"], 2, "did you mean `hu`"),
        (["ONE", "--lang", "en", "--text", "a.txt"], 2, "target and source are both `en`"),
        (["ONE", "ONE", "--lang", "hu", "--text", "a.txt"], 2, "given twice"),
        (["ONE", "--lang", "hu", "--text", "a.txt", "--budget", "8 apples"], 2, "8 apples"),
        (["ONE", "--lang", "hu", "--text", "a.txt", "--budget", "0h"], 2, "above 0"),
        (["ONE", "--lang", "hu", "--text", "a.txt", "--parallel", "a.txt"], 3, "1 column where two are needed"),
        (["ONE", "--lang", "hu", "--text", "a.txt", "--source-text", "none.txt"], 3, "`none.txt` does not exist"),
    ],
)
def test_what_cannot_be_diagnosed(place: Path, call: Run, arguments: list[str], code: int, message: str) -> None:
    Path("empty.txt").write_text("\n", encoding="utf-8")
    done = call("diagnose", *(str(place / "one") if word == "ONE" else word for word in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_little_text_still_gets_an_answer(place: Path, call: Run) -> None:
    done = call("diagnose", str(place / "one"), "--lang", "hu", "--text", "a.txt", "--table")
    assert done.code == 0, done.err
    assert "too few tokens for one step" in done.out
    assert "leave the vocabulary alone" in done.out


def test_a_model_too_large_for_the_memory_is_not_scored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.train.faster.free_memory", lambda device: 1000)
    found = langadapt.diagnose(place / "one", lang="hu", text=place / "hu.jsonl")
    assert "not_scored" in found.models[0]
    assert found.advice[0]["verdict"] == "not scored"


def test_damaged_weights(tmp_path: Path, place: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="NaN"):
        langadapt.diagnose(folder, lang="hu", text=place / "hu.jsonl")
