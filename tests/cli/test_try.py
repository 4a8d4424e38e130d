"""`try`: what models write, side by side, and that nothing they write can steer a terminal."""

import json
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langadapt.cli.layout import beside
from langadapt.cli.output import Screen, visible
from langadapt.core.artifact import Identity, Output, writing
from langadapt.core.errors import LangadaptError
from langadapt.core.progress import Progress
from langadapt.evaluate.sampling import draw
from langadapt.steps.try_models import Manner, Reply, try_models
from tests.cli.conftest import Run

PROMPT = "az öreg ház"


def values(count: int) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    random = np.random.Generator(np.random.Philox(key=5))
    for _ in range(count):
        logits = random.standard_normal(12) * 3
        logits[int(random.integers(12))] = -np.inf
        logits[3] = logits[7]  # equal ones
        yield logits, random


def test_a_draw_against_a_slow_oracle() -> None:
    for logits, random in values(200):
        temperature, top_p, luck = 0.3 + random.random() * 2, 0.05 + 0.95 * random.random(), float(random.random())
        probabilities = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        nucleus: list[int] = []
        while sum(probabilities[nucleus]) < top_p and len(nucleus) < 11:
            left = [at for at in range(12) if at not in nucleus]
            nucleus.append(max(left, key=lambda at: (probabilities[at], -at)))
        mass, expected = 0.0, nucleus[-1]
        for at in nucleus:
            mass += probabilities[at] / sum(probabilities[nucleus])
            if luck < mass:
                expected = at
                break
        assert draw(logits, luck, temperature, top_p) == expected


def test_the_ends_of_chance() -> None:
    for logits, _ in values(20):
        assert draw(logits, 0.999, 1.0, 1e-9) == int(np.argmax(logits)), "a tiny nucleus is the most probable token"
        assert logits[draw(logits, 0.999, 1e-6, 1.0)] == logits.max(), "a cold one too"
        assert np.isfinite(logits[draw(logits, 1 - 2**-53, 100.0, 1.0)]), "never a token that may not be written"


def test_greedy_without_a_penalty_is_what_transformers_generates(tiny_untied: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    [reply] = try_models([tiny_untied], PROMPT, Manner(tokens=30, repetition_penalty=1.0))
    tokenizer = AutoTokenizer.from_pretrained(tiny_untied)
    model = AutoModelForCausalLM.from_pretrained(tiny_untied)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
    assert reply.prompt_tokens == ids.shape[1] and reply.begins_with == "<s>"
    suppressed = sorted(set(tokenizer.all_special_ids) - {tokenizer.eos_token_id})
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, suppress_tokens=suppressed
    )
    new = [int(item) for item in out[0, ids.shape[1] :] if item != tokenizer.eos_token_id]
    assert reply.tokens == len(new)
    assert reply.text == tokenizer.decode(new).rstrip("�") or reply.text == tokenizer.decode(new)
    other = try_models([tiny_untied], PROMPT, Manner(tokens=30))[0]
    assert other.text != reply.text, "by default what was written is less likely"


def test_chance_is_a_named_stream(tmp_path: Path, tiny: Path, tiny_untied: Path) -> None:
    manner = Manner(tokens=12, sample=True, seed=3)
    alone = try_models([tiny_untied], PROMPT, manner)
    beside_another = try_models([tiny, tiny_untied], ["egy", PROMPT], manner)
    assert [(Path(reply.model).name, reply.prompt) for reply in beside_another] == [
        (tiny.name, "egy"), (tiny_untied.name, "egy"), (tiny.name, PROMPT), (tiny_untied.name, PROMPT)
    ]  # fmt: skip
    assert beside_another[3].text == alone[0].text, "neither another model nor another prompt changes it"
    (tmp_path / "same").symlink_to(tiny_untied)
    assert try_models([tmp_path / "same"], PROMPT, manner)[0].text == alone[0].text, "nor its name: equal luck for all"
    assert try_models([tiny_untied], PROMPT, Manner(tokens=12, sample=True, seed=4))[0].text != alone[0].text


def test_in_a_pipe_one_line_each(call: Run, tiny: Path, tiny_untied: Path) -> None:
    done = call("try", str(tiny), str(tiny_untied), "--tokens", "4", "-", stdin="egy ház\n\n  \nkettő\r\n".encode())
    assert done.code == 0, done.err
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == [str(tiny), str(tiny_untied)] * 2 and {len(row) for row in rows} == {2}
    found = json.loads(call("try", str(tiny), "--tokens", "4", "--json", "kettő").out)
    [result] = found["results"]
    assert visible(result["replies"][0]["text"]) == rows[2][1], "the prompt of a line ends where the line ends"
    assert found["schema"] == "langadapt/try/1" and result["replies"][0]["model"] == str(tiny)
    assert result["replies"][0]["tokens_per_word"] == result["replies"][0]["prompt_tokens"] - 1


def test_chat_uses_the_template(call: Run, tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    talk: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "egy"}], add_generation_prompt=True, tokenize=False
    )
    [reply] = try_models([tiny], "egy", Manner(tokens=2, chat=True))
    assert reply.prompt_tokens == len(tokenizer(talk, add_special_tokens=False)["input_ids"])


def test_a_step_of_the_workspace(call: Run, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "langadapt.yaml").write_text("steps: {}\n")
    missing = call("try", "cpt", "--tokens", "2", "egy")
    assert missing.code == 3, "no such step, nor anything else"
    place = tmp_path / "steps" / "cpt-0123456789"
    who = Identity("model", "cpt", 1, {}, {})
    with writing(place, who, inputs={}, progress=Progress()) as (_, output):
        assert isinstance(output, Output)
        shutil.copytree(tiny, output.folder, dirs_exist_ok=True)
        output.commit({"document_separator": 0})
    (tmp_path / "steps" / "cpt").symlink_to(place.name)
    done = call("try", "cpt", "--tokens", "2", "egy")
    assert done.code == 0, done.err
    assert done.out.startswith("cpt\t"), "it is shown as it was named"
    [reply] = try_models([place], "egy", Manner(tokens=2))
    assert reply.begins_with == "<|endoftext|>", "the separator it was trained with, not BOS"


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (3, "neither a file or folder here", ("no-such-model", "egy")),
        (3, "`./none` does not exist", ("./none", "egy")),
        (2, "the name of a model is empty", ("", "egy")),
        (2, "an empty prompt", ("MODEL", "")),
        (2, "an empty prompt", ("MODEL", " \n")),
        (2, "missing argument 'MODEL...'", ("MODEL",)),
        (3, "stdin holds no prompt", ("MODEL", "-")),
        (3, "has no chat template|leave out --chat", ("PLAIN", "--chat", "egy")),
        (3, "512 positions|--tokens", ("MODEL", "--tokens", "600", "egy")),
        (3, "512 positions", ("MODEL", "egy ház " * 300)),
        (2, "--temperature, --seed without --sample", ("MODEL", "--temperature", "1", "--seed", "2", "egy")),
        (2, "`temperature` must be above 0", ("MODEL", "--sample", "--temperature", "nan", "egy")),
        (2, "`top_p` must be", ("MODEL", "--sample", "--top-p", "1.5", "egy")),
        (2, "`tokens` must be at least 1", ("MODEL", "--tokens", "0", "egy")),
    ],
)  # fmt: skip
def test_what_is_refused(
    call: Run, tmp_path: Path, tiny: Path, code: int, words: str, arguments: tuple[str, ...]
) -> None:
    if "PLAIN" in arguments:
        shutil.copytree(tiny, tmp_path / "PLAIN")
        (tmp_path / "PLAIN" / "chat_template.jinja").unlink()
    (tmp_path / "MODEL").symlink_to(tiny)
    done = call("try", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    for part in words.split("|"):
        assert part in done.err


def test_a_model_that_brings_code_is_refused(call: Run, tmp_path: Path, tiny: Path) -> None:
    shutil.copytree(tiny, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    assert call("try", "m", "egy").code == 6


HOSTILE = "[bold]x[/bold] :smile: \x1b[31m\x07\r\x9b2J\u202egpj \u2028\ue000 \x00 end"


def replies(text: str) -> list[Reply]:
    shared: dict[str, Any] = {"tokens": 1, "prompt_tokens": 3, "tokens_per_word": 1.5, "seconds": 0.2}
    return [
        Reply(model=name, prompt=text, text=text, ended="model", begins_with=None, **shared) for name in ("a", "[hu]")
    ]


@pytest.mark.parametrize("how", [("--table",), (), ("--json",)])
@pytest.mark.parametrize("columns", ["40", "100"])
def test_hostile_text_is_shown_and_does_nothing(
    call: Run, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...], columns: str
) -> None:
    monkeypatch.setattr("langadapt.steps.try_models.try_models", lambda *given, **more: replies(HOSTILE))
    done = call("try", "a", "[hu]", "x", *how, COLUMNS=columns)
    assert done.code == 0, done.err
    steering = {"Cc", "Zl", "Zp"}
    assert not [letter for letter in done.out if unicodedata.category(letter) in steering and letter not in "\n\t"]
    assert "\u202e" not in done.out
    flat = " ".join(done.out.split())
    if how != ("--json",):
        assert "[bold]x[/bold] :smile:" in flat and "\\x1b[31m\\x07\\r\\x9b2J\\u202e" in "".join(flat.split())
        assert "[hu]" in flat
    else:
        assert json.loads(done.out)["results"][0]["replies"][1]["text"] == HOSTILE
    if how == ():
        back = done.out.splitlines()[0].split("\t")[1].encode("latin-1", "backslashreplace").decode("unicode_escape")
        assert back == HOSTILE, "a line can be read back"


def test_letters_of_any_script_stay_as_they_are() -> None:
    text = "می\u200cخواهم क\u094d\u200dष 東京\u3000駅 f\u00adg a\u00a0b e\u0301"
    assert visible(text) == visible(text, lines=True) == text
    assert visible("a\\n\tb\nc") == "a\\\\n\\tb\\nc"
    assert visible("a\\n\tb\nc", lines=True) == "a\\n    b\nc"


def test_columns_where_they_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    shown = {}
    for width in (40, 65, 66, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        beside(Screen().console(sys.stdout), [("one", "1 s", "first\nline " * 3), ("two", "2 s", "other")])
        shown[width] = capsys.readouterr().out
        assert max(len(line.rstrip()) for line in shown[width].splitlines()) <= width
    together = {
        width: any("one" in line and "two" in line for line in text.splitlines()) for width, text in shown.items()
    }
    assert together == {40: False, 65: False, 66: True, 120: True}


def test_it_is_a_python_function(tiny: Path) -> None:
    import langadapt

    with pytest.raises(LangadaptError):
        langadapt.try_models([tiny], "egy", langadapt.Manner(tokens=0))
    assert langadapt.try_models is try_models
