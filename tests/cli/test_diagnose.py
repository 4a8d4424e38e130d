"""`langadapt diagnose` from the command line and as a function, on models with random weights."""

import json
import random
import shlex
from pathlib import Path

import pytest

import langadapt
from langadapt.cli.app import main
from langadapt.core.errors import DataError
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.matching import match
from langadapt.model.token_table import TokenTable
from langadapt.vocab.least_used import always_stay
from langadapt.vocab.tokenizer_file import read
from tests.cli.conftest import Run
from tests.fixtures.encoders import tiny_encoder
from tests.fixtures.fallback import tiny_gemma3
from tests.fixtures.families import family_tokenizer
from tests.fixtures.pieces import unigram_tokenizer, wordpiece_tokenizer
from tests.fixtures.tiny import tiny_config, tiny_corpus, tiny_model, tiny_text


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
    # the detector has the function under a name of its own once it is imported
    for module in ("lid_model", "detector"):
        monkeypatch.setattr(f"langadapt.corpus.{module}.find_model", lambda given: None)
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
    ends = next(at for at, line in enumerate(commands) if not line.startswith("  "))
    assert shlex.split(commands[ends - 1])[1] == "evaluate"
    # a made-up text of 60 words needs few of the tokens: the other way has its command below
    assert (commands[ends], shlex.split(commands[ends + 1])[1]) == ("trim the vocabulary first", "trim-vocab")
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
    assert any(row.startswith("model bytes per token\t") for row in rows)
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
    assert found.instead
    for line in (*found.commands, *(way["command"] for way in found.instead)):
        with pytest.raises(SystemExit) as left:
            main([*shlex.split(line)[1:], "--print-config"])
        assert left.value.code in (0, None), line
        capsys.readouterr()


THAI = "บ้านเก่าหลังนี้ตั้งอยู่ริมแม่น้ำและเด็กๆเดินไปอีกฟากของเมืองในตอนเช้า ผู้คนรู้จักแม่น้ำ ภูเขา และถนนสายเก่าเป็นอย่างดี "


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of the four families, encoders, an encoder-decoder model; Thai text."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("families")
    for family in ("byte-bpe", "gemma", "unigram", "wordpiece"):
        family_tokenizer(folder / family, family)
        spec = json.loads((folder / family / "tokenizer.json").read_text(encoding="utf-8"))
        rows = 1 + max([len(spec["model"]["vocab"]) - 1, *(token["id"] for token in spec["added_tokens"])])
        config = tiny_config("llama", rows=rows, width=32, layers=1, tied=True)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / family)
    for arch in ("bert", "xlmr", "t5"):
        tiny_encoder(folder / arch, arch)
    (folder / "th.txt").write_text("\n".join(THAI * (1 + at % 4) + str(at) for at in range(900)), encoding="utf-8")
    return folder


def test_all_families_side_by_side(place: Path, families: Path, call: Run) -> None:
    names = ["byte-bpe", "gemma", "unigram", "wordpiece", "bert", "xlmr", "t5"]
    models, text = [str(families / name) for name in names], ["--text", str(place / "hu.jsonl")]
    parallel = ["--parallel", str(place / "pairs.tsv"), "--source-text", str(place / "en.jsonl"), "--budget", "8h"]
    done = call("diagnose", *models, "--lang", "hu", *text, *parallel, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    for name, model in zip(names, found["models"], strict=True):
        causal = name in names[:4]
        assert (model["kind"] is None) == causal == ("scores" in model) == (model["outlook"] is not None)
        assert 0 < model["used_rows"] <= model["vocabulary"] and model["parity"] > 0
        if name in ("unigram", "wordpiece", "bert", "xlmr", "t5"):
            stay = always_stay(read(families / name)).values()
            assert model["used_rows"] >= len(stay), "characters stay without a use"
        letters = model["letters"]
        assert bool(letters["unspellable"]) == (name not in ("byte-bpe", "gemma")) and not model["altered_letters"]
    advice = {(item["model"], item["verdict"]) for item in found["advice"]}
    for name in ("unigram", "wordpiece", "bert", "xlmr", "t5"):
        assert (str(families / name), "add the missing letters first") in advice, name
    assert "it is an encoder (BertForMaskedLM)" in found["advice"][0]["why"]


def test_an_encoder_is_told_what_it_can_get(place: Path, families: Path, call: Run) -> None:
    done = call("diagnose", str(families / "bert"), "--lang", "hu", "--text", str(place / "hu.jsonl"), "--table")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if line.strip().startswith("bits per byte, hu")]
    assert len(rows) == 1 and "n/a" in rows[0] and "guessing a token" not in done.out
    commands = [shlex.split(line)[1] for line in done.out.partition("\nnext\n")[2].splitlines() if "langadapt" in line]
    assert commands[:3] == ["prepare", "extend-vocab", "init-embeddings"] and not {"mix", "cpt"} & set(commands)


def test_a_script_without_spaces(families: Path) -> None:
    found = langadapt.diagnose(families / "byte-bpe", lang="th", text=families / "th.txt", score=False)
    target = found.models[0]["target"]
    assert target["tokens_per_word"] is None and target["unspaced_script"] == "Thai or Lao"
    assert target["bytes_per_token"] > 0 and found.models[0]["script"] == "THAI" and found.commands


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
    plain = call("diagnose", str(place / "one"), "--lang", "hu", "--text", "a.txt", "--no-score").out
    keys = [line.split("\t")[0] for line in plain.splitlines() if not line.startswith("next")]
    assert len(set(keys)) == len(keys) and {key.split()[0].rstrip(",") for key in keys} >= {"text", "model", "advice"}


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


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_the_advice_to_trim_is_followed_to_a_smaller_model_that_says_the_same(
    place: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that it names, as is: no more rows than it foretold, and the same logits of what is kept."""
    import torch
    from transformers import AutoModelForCausalLM

    draw = random.Random(0)
    strange = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(800)] * 3
    make = {"unigram": unigram_tokenizer, "wordpiece": wordpiece_tokenizer}[kind]
    make(tmp_path / "base", [*tiny_text("hu", 80), *tiny_text("en", 60, 1), *strange], size=900)
    rows = len(TokenTable.from_folder(tmp_path / "base").pieces)
    config = tiny_config("llama", rows=rows, width=64, layers=1, tied=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")

    monkeypatch.chdir(tmp_path)

    def out_of(line: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(shlex.split(line)[1:])
        shown = capsys.readouterr()
        assert left.value.code in (0, None), (line, shown.err)
        return shown.out

    texts = f"--text {place / 'hu.jsonl'} --source-text {place / 'en.jsonl'}"
    found = json.loads(out_of(f"langadapt diagnose base --lang hu {texts} --no-score --json"))
    [way] = [item for item in found["instead"] if item["verdict"] == "trim the vocabulary first"]
    for line in (
        *found["commands"][:2],
        way["command"],
        "langadapt init-embeddings base work/trimmed --out work/small",
    ):
        out_of(line)

    old, new = (TokenTable.from_folder(folder) for folder in (tmp_path / "base", tmp_path / "work" / "small"))
    used, fixed = found["models"][0]["used_rows"], len(always_stay(read(tmp_path / "base")))
    assert fixed < new.size <= used * 1.05 < 0.7 * old.size
    kept = match(old, TokenTable.from_folder(tmp_path / "work" / "trimmed"), base_rows=rows).kept
    before, after = (
        (load_tokenizer(folder), load_model(folder)) for folder in (tmp_path / "base", tmp_path / "work" / "small")
    )
    for text in (*tiny_text("hu", 20), *tiny_text("en", 10, 1)):
        ids = before[0](text)["input_ids"]
        assert [kept[id] for id in ids] == after[0](text)["input_ids"]
    olds, news = zip(*kept.items(), strict=True)
    with torch.inference_mode():
        said = [
            tokens_and_model[1](torch.tensor([tokens_and_model[0](text)["input_ids"]])).logits[0]
            for tokens_and_model in (before, after)
        ]
    assert torch.equal(said[0][:, list(olds)], said[1][:, list(news)])
