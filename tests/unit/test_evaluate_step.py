"""The verb on tiny models: what it writes, that it repeats, and that a stopped run goes on to the same bytes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from langadapt.core import interrupt, verb
from langadapt.core.artifact import Artifact, Identity, Output, partial_folder, writing
from langadapt.core.errors import ConfigError, Interrupted
from langadapt.core.inputs import resolve_inputs
from langadapt.core.io import read_json_lines, read_json_object
from langadapt.core.progress import Advanced, Event, Progress
from langadapt.core.validate import validate
from tests.fixtures.tiny import tiny_corpus, tiny_model


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and two corpora, held out whole."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder / "base")
    tiny_model(folder / "adapted", seed=1)
    for lang, count in (("hu", 40), ("en", 12)):
        values = {"text": [str(tiny_corpus(folder / "raw", lang, count))], "lang": lang, "held_out_share": 1.0}
        step = verb.load("prepare")
        verb.perform(
            step,
            validate(step.config, values | {"documents": "line", "min_lang_probability": 0}),
            folder / f"corpus-{lang}",
        )
    return folder


def values(work: Path, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"base": str(work / "base"), "adapted": str(work / "adapted"), "continuations": 1}
    plain |= {"sets": {"hu": str(work / "corpus-hu"), "en": str(work / "corpus-en")}, "compute": "fp32"}
    plain |= {"segment_bytes": 100, "context_bytes": 100, "set_bytes": 3000, "bootstrap_samples": 200}
    return plain | {"document_separator": "<|endoftext|>"} | changes


def perform(work: Path, name: str, progress: Progress | None = None, **changes: Any) -> Artifact:
    step = verb.load("evaluate")
    config = validate(step.config, values(work, **changes))
    return verb.perform(step, config, work / name, progress=progress).artifact


@pytest.fixture(scope="module")
def scores(work: Path) -> Artifact:
    return perform(work, "scores", control=str(work / "adapted"))


def test_summary_follows_from_the_segments(scores: Artifact) -> None:
    summary = read_json_object(scores.file("summary.json"))
    rows = list(read_json_lines(scores.file("segments.jsonl")))
    for lang in ("hu", "en"):
        entry = summary["languages"][lang]["sets"][lang]
        mine = [row for row in rows if row["set"] == lang]
        size = sum(row["bytes"] for row in mine)
        assert (entry["bytes"], entry["segments"]) == (size, len(mine)) and len(mine) >= 50
        for model in ("base", "adapted"):
            bits = sum(row["nll"][model] for row in mine) / math.log(2) / size
            assert entry["bits_per_byte"][model] == pytest.approx(bits, abs=1e-6)
            null = math.log2(summary["models"][model]["rows"]) * sum(row["tokens"][model] for row in mine) / size
            assert entry["bits_per_byte"][f"uniform_{model}"] == pytest.approx(null, abs=1e-6)
        delta = entry["bits_per_byte"]["adapted"] - entry["bits_per_byte"]["base"]
        assert entry["bits_per_byte"]["delta"] == pytest.approx(delta, abs=2e-6)
    assert summary["languages"]["hu"]["role"] == "target" and summary["languages"]["en"]["role"] == "source"
    assert summary["languages"]["en"]["held_out_lines_same_ids"] == 1.0
    assert summary["settings"]["wanted_segments"] == 50


def test_a_control_equal_to_the_adapted_model_is_no_detectable_change(scores: Artifact) -> None:
    bits = read_json_object(scores.file("summary.json"))["languages"]["hu"]["sets"]["hu"]
    assert bits["bits_per_byte"]["delta_control"] == 0 == bits["bits_per_byte"]["delta_control_high"]
    assert bits["bits_per_byte"]["verdict_control"] == "no detectable change"
    assert any("no detectable difference in quality, with 1.00 of" in text for text in bits["sentences"])


def test_all_models_continue_the_same_prompt(scores: Artifact) -> None:
    [sample] = read_json_object(scores.file("summary.json"))["continuations"]
    for model in ("base", "adapted", "control"):
        # a random model writes stray bytes, each shown as one replacement character of three
        assert 150 <= len(sample[model].replace("\ufffd", "?").encode()) <= 160
        assert not any(token in sample[model] for token in ("<|endoftext|>", "<s>", "</s>", "<pad>"))
    assert sample["adapted"] == sample["control"]


def test_splits_spell_the_sentence(scores: Artifact) -> None:
    splits = [line for line in read_json_lines(scores.file("samples.jsonl")) if line["kind"] == "split"]
    assert splits
    for line in splits:
        for model in ("base", "adapted"):
            assert "".join(part for part, _ in line[model]) == line["text"]


def test_the_table_has_a_row_a_set_and_the_sentences(scores: Artifact) -> None:
    step = verb.load("evaluate")
    assert step.table is not None
    table = step.table(scores)
    assert [row[:2] for row in table.rows] == [("en", "en"), ("hu", "hu")]  # summary.json sorts its keys
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert any("capped near 3.0 kB" in note for note in table.notes)


def adapted_to(work: Path, lang: str) -> Artifact:
    """The adapted model as an artifact of cpt whose facts name `lang`."""
    place = work / f"adapted-{lang}"
    who = Identity("model", "cpt", 1, {"lang": lang}, {})
    with writing(place, who, inputs={}, progress=Progress()) as (_, out):
        assert isinstance(out, Output)
        for path in (work / "adapted").iterdir():
            shutil.copyfile(path, out.folder / path.name)
        return out.commit({"lang": lang})


def test_every_language_of_a_mixture_with_several_targets_is_a_target(work: Path) -> None:
    adapted = adapted_to(work, "fi+hu")
    summary = read_json_object(perform(work, "two", adapted=str(adapted.path)).file("summary.json"))
    assert {lang: entry["role"] for lang, entry in summary["languages"].items()} == {"hu": "target", "en": "source"}
    assert "held_out_lines_same_ids" not in summary["languages"]["hu"]
    assert summary["continuations"] and not any("target language" in text for text in summary["warnings"])


def test_no_set_in_the_target_language_is_said(work: Path) -> None:
    done = perform(work, "no-target", adapted=str(adapted_to(work, "fi").path))
    assert "no set is in the target language `fi`: all are reported as sources" in done.facts["warnings"]


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = perform(work, "whole")

    def stop_at(task: str) -> Progress:
        def listen(event: Event) -> None:
            if isinstance(event, Advanced) and event.task == task:
                monkeypatch.setattr(interrupt, "_seen", [15])

        return Progress(listen)

    for task in ("score base on en", "score adapted on hu", "continue with adapted"):
        with pytest.raises(Interrupted) as caught:
            perform(work, "stopped", stop_at(task))
        assert caught.value.exit_code == 75
        monkeypatch.setattr(interrupt, "_seen", [])
        assert not (work / "stopped").exists() and partial_folder(work / "stopped").is_dir()
    heard: list[str] = []
    again = perform(work, "stopped", Progress(lambda event: heard.append(getattr(event, "task", ""))))
    assert "score base on en" not in heard and "score adapted on hu" not in heard
    assert again.digest == whole.digest
    assert not partial_folder(work / "stopped").exists()


def test_small_sets_say_so_and_claim_nothing(work: Path, tmp_path: Path) -> None:
    step = verb.load("prepare")
    raw = tiny_corpus(tmp_path, "hu", 1)
    text = {"text": [str(raw)], "lang": "hu", "held_out_share": 1.0, "documents": "line"}
    verb.perform(step, validate(step.config, text), tmp_path / "small")
    found = perform(work, "few", sets={"hu": str(tmp_path / "small")})
    summary = read_json_object(found.file("summary.json"))
    entry = summary["languages"]["hu"]["sets"]["hu"]
    assert entry["segments"] < 8 and entry["bits_per_byte"]["delta_low"] is None
    assert "too few for an interval" in entry["sentences"][0] and "too few" in summary["warnings"][0]


def test_a_model_of_nan_gives_null_with_a_reason(work: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tiny_model(work / "broken")
    path = work / "broken" / "model.safetensors"
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith("norm.weight"))
    tensors[name][:] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    found = perform(work, "nan", adapted=str(work / "broken"), sets={"hu": str(work / "corpus-hu")}, continuations=0)
    entry = read_json_object(found.file("summary.json"))["languages"]["hu"]["sets"]["hu"]
    assert entry["bits_per_byte"]["adapted"] is None and entry["bits_per_byte"]["verdict"] is None
    assert "gave no number" in entry["reason"] and "no score" in entry["sentences"][0]
    json.dumps(entry, allow_nan=False)


def test_separator_must_exist(work: Path) -> None:
    with pytest.raises(ConfigError, match="no token `<nope>`"):
        perform(work, "nope", document_separator="<nope>")


def test_sets_are_required(work: Path) -> None:
    with pytest.raises(ConfigError, match="held-out text"):
        perform(work, "none", sets={})


def test_the_price_is_known_before(work: Path) -> None:
    step = verb.load("evaluate")
    config = validate(step.config, values(work))
    price = step.estimate(config, resolve_inputs(config))
    assert price.seconds is not None and 0 < price.seconds < 600
    assert price.memory_bytes is not None and price.memory_bytes > 1e8
    assert price.problems == () and [row[0] for row in price.rows] == ["hu", "en", "compute"]
