"""`verify`: what is damaged in an artifact, which promises of a vocabulary do not hold, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import langadapt
from langadapt.core.manifest import checksum
from tests.cli.conftest import Run
from tests.fixtures.spm import spm_tokenizer
from tests.fixtures.tiny import tiny_corpus, tiny_text


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora, tokenizers of each kind and a model with new rows. Read only."""
    place = tmp_path_factory.mktemp("verify")
    (place / "base").symlink_to(tiny)
    plain = {"min_lang_probability": 0.0, "near_duplicates": "off"}
    for lang in ("hu", "en"):
        langadapt.prepare(out=place / lang, text=[tiny_corpus(place / "text", lang, 60)], lang=lang, **plain)
    how = {"model": place / "base", "corpus": place / "hu", "guard": [place / "en"], "min_count": 2}
    langadapt.extend_vocab(out=place / "append", size=30, **how)
    langadapt.extend_vocab(out=place / "same-size", size=10, mode="same-size", **how)
    langadapt.trim_vocab(place / "base", [place / "hu"], out=place / "trim")
    langadapt.train_tokenizer(place / "base", [place / "hu"], size=400, out=place / "fresh")
    langadapt.init_embeddings(place / "base", place / "append", out=place / "init")
    return place


def copy(made: Path, name: str, place: Path) -> Path:
    return Path(shutil.copytree(made / name, place / name, symlinks=True))


def resigned(folder: Path) -> None:
    """Make the manifest fit what was changed, as a careful forger would."""
    from langadapt.core.io import pretty_json, sha256_file

    manifest = json.loads((folder / "artifact.json").read_text())
    for name, entry in manifest["files"].items():
        entry |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    del manifest["checksum"]
    manifest["checksum"] = checksum(manifest)
    (folder / "artifact.json").write_text(pretty_json(manifest))


def test_an_artifact_and_those_inside_it(call: Run, made: Path, tmp_path: Path) -> None:
    outer = copy(made, "init", tmp_path)
    shutil.copytree(made / "append", outer / "branch")
    manifest = json.loads((outer / "artifact.json").read_text())
    files = [path for path in (outer / "branch").rglob("*") if path.is_file()]
    manifest["files"] |= {path.relative_to(outer).as_posix(): {} for path in files}
    (outer / "artifact.json").write_text(json.dumps(manifest))
    resigned(outer)
    done = call("verify", "artifact", "init")
    assert done.code == 0, done.err
    assert [line.split("\t")[::4] for line in done.out.splitlines()] == [[".", "as written"], ["branch", "as written"]]

    damaged = outer / "branch" / "tokenizer.json"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (outer / "branch" / "vocab_map.jsonl").unlink()
    (outer / "branch" / "mine.txt").write_text("x")
    done = call("verify", "artifact", "init", "--json")
    found = json.loads(done.out)
    assert done.code == 3 and "`init` is damaged: `branch/tokenizer.json`" in done.err and "3 more" in done.err
    whole, inner = found["artifacts"]
    assert not found["intact"] and [text.split(" ")[0] for text in inner["damaged"]] == [
        "`tokenizer.json`", "`vocab_map.jsonl`",
    ]  # fmt: skip
    assert [text.split(" ")[0] for text in whole["damaged"]] == ["`branch/tokenizer.json`", "`branch/vocab_map.jsonl`"]
    assert (whole["unlisted"], inner["unlisted"]) == ([], ["mine.txt"])

    (outer / "branch" / "artifact.json").write_text("{}")
    done = call("verify", "artifact", "init/branch")
    assert done.code == 3 and "is not a manifest" in done.err


def test_damage_that_the_cache_would_not_see(call: Run, made: Path, tmp_path: Path) -> None:
    """A whole workspace at once; a file that changed behind the back of the notes of earlier looks."""
    for name in ("append", "trim"):
        copy(made, name, tmp_path)
    assert call("verify", "artifact", ".").code == 0
    path = tmp_path / "trim" / "checks.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    done = call("verify", "artifact", ".")
    assert done.code == 3 and "`trim` is damaged: `checks.json`" in done.err
    assert "append\ttokenizer" in done.out


def test_a_step_of_the_run_that_is_here(call: Run, made: Path, tmp_path: Path) -> None:
    """As `verify vocab` and `verify shield` take one."""
    copy(made, "trim", tmp_path / "steps")
    (tmp_path / "steps" / "trim").rename(tmp_path / "steps" / "cut-0123456789")
    (tmp_path / "steps" / "cut").symlink_to("cut-0123456789")
    assert call("verify", "artifact", "cut").code == 3
    (tmp_path / "langadapt.yaml").write_text("steps: {}\n")
    done = call("verify", "artifact", "cut")
    assert done.code == 0 and "as written" in done.out, done.err


@pytest.mark.parametrize("name", ["append", "same-size", "trim", "fresh", "init"])
def test_what_langadapt_made_holds(call: Run, made: Path, name: str) -> None:
    done = call("verify", "vocab", str(made / "base"), str(made / name), "--json", "--text", str(made / "en"))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["holds"] and len(found["checks"]) >= 5
    modes = {"fresh": "new-tokenizer", "init": "append"}
    assert found["mode"] == modes.get(name, name)
    guarded = found["checks"].get("guarded_words_kept")
    assert (guarded is not None and guarded["examined"] > 50) == (name in ("append", "same-size"))
    # a model does not say what its tokenizer's guard was: the text is measured
    assert len(found["measured"]) == (name == "init")
    if name == "init":
        assert found["checks"]["input table: kept rows are the base's bits"]["examined"] > 300
        assert found["measured"][0]["words_changed"] == 0


def test_the_sentencepiece_model_beside_it(call: Run, made: Path, tmp_path: Path) -> None:
    """Extended and trimmed tokenizers with a `.model`, and one whose `.model` is that of the base."""
    base = spm_tokenizer(tmp_path / "base", "xlmr", tiny_text("en", 30), size=90)
    (base / "config.json").write_text("{}")
    extended = langadapt.extend_vocab(
        model=base, corpus=made / "hu", guard=[made / "en"], min_count=2, size=20, out=tmp_path / "append"
    )
    langadapt.trim_vocab(base, [made / "hu"], out=tmp_path / "trim")
    for name in ("append", "trim"):
        found = json.loads(call("verify", "vocab", "base", name, "--json").out)
        assert found["holds"] and found["checks"]["sentencepiece_pieces"]["examined"] > 50, found
    name = str(extended.facts["sentencepiece"])
    shutil.copyfile(base / name, tmp_path / "append" / name)
    resigned(tmp_path / "append")
    done = call("verify", "vocab", "base", "append")
    assert done.code == 1 and "the .model has the pieces of tokenizer.json" in done.err


def test_target_text_is_measured_and_no_promise(call: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "hu.txt").write_text("\n".join(tiny_text("hu", 5)), encoding="utf-8")
    done = call("verify", "vocab", str(made / "base"), str(made / "append"), "--text", "hu.txt", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["measured"][0]["words_changed"] > 5
    assert found["measured"][0]["examples"] and any("--text" in note for note in found["notes"])
    shown = call("verify", "vocab", str(made / "base"), str(made / "append"), "--text", "hu.txt", "--table").out
    assert "old tokens keep their ids" in shown and "nothing is promised" in shown


def _edit(folder: Path, change: Any) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    resigned(folder)


def _swap_ids(content: Any) -> None:
    vocabulary = content["model"]["vocab"]
    first, second = [piece for piece, id in vocabulary.items() if id in (300, 301)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def _first_merge_of_new(content: Any) -> None:
    """The last merge comes first: it takes precedence over old ones."""
    merges = content["model"]["merges"]
    merges.insert(0, merges.pop())


def _forget_a_special(content: Any) -> None:
    content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != "</s>"]


def _lower(content: Any) -> None:
    content["normalizer"] = {"type": "Lowercase"}


def _join_the(content: Any) -> None:
    """One more token, made of what protected text has side by side."""
    vocabulary = content["model"]["vocab"]
    vocabulary["12"] = max(vocabulary.values()) + 1
    content["model"]["merges"].append(["1", "2"])
    content["pre_tokenizer"]["pretokenizers"] = content["pre_tokenizer"]["pretokenizers"][1:]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (_swap_ids, {"ids_kept"}),
        (_first_merge_of_new, {"merges_kept"}),
        (_forget_a_special, {"special_ids_added", "sections_kept"}),
        (_lower, {"sections_kept", "same_round_trip"}),
        (_join_the, {"sections_kept"}),
    ],
)
def test_a_promise_that_does_not_hold(call: Run, made: Path, tmp_path: Path, change: Any, broken: set[str]) -> None:
    _edit(copy(made, "append", tmp_path), change)
    done = call("verify", "vocab", str(made / "base"), "append", "--json", "--text", str(made / "en"))
    found = json.loads(done.out)
    failed = {name for name, check in found["checks"].items() if check["broken"]}
    assert done.code == 1 and not found["holds"] and broken <= failed, (failed, done.err)
    assert "do not hold" in done.err and "e.g." in done.err
    assert all(found["checks"][name]["examples"] for name in broken)


def test_protected_words_that_changed_are_shown(call: Run, made: Path, tmp_path: Path) -> None:
    """A token of two letters that the guard's text has side by side, appended as any new token."""

    def join(content: Any) -> None:
        vocabulary = content["model"]["vocab"]
        for left, right in (("s", "z"), ("g", "y"), ("c", "s")):
            if left + right not in vocabulary:
                vocabulary[left + right] = max(vocabulary.values()) + 1
                content["model"]["merges"].append([left, right])

    _edit(copy(made, "append", tmp_path), join)
    done = call("verify", "vocab", str(made / "base"), "append", "--text", str(made / "en"))
    assert done.code == 1 and "words of the guard's text keep their ids" in done.err
    assert "broken\t`" in next(line for line in done.out.splitlines() if line.startswith("words of the guard"))


def test_a_row_that_is_not_the_bases(call: Run, made: Path, tmp_path: Path) -> None:
    folder = copy(made, "init", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][7, 3] = -tensors["model.embed_tokens.weight"][7, 3]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    resigned(folder)
    done = call("verify", "vocab", str(made / "base"), "init")
    assert done.code == 1 and "1 of 358 do not, e.g. row 7" in done.err


def test_rows_that_moved_are_followed(call: Run, made: Path, tmp_path: Path) -> None:
    langadapt.init_embeddings(made / "base", made / "trim", out=tmp_path / "small")
    done = call("verify", "vocab", str(made / "base"), "small", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["mode"] == "trim", done.err
    assert found["checks"]["rows_follow_tokens"]["examined"] > 200
    path = tmp_path / "small" / "row_origin.safetensors"
    from safetensors.numpy import load_file as load
    from safetensors.numpy import save_file as save

    origin = load(path)["origin"]
    origin[[50, 51]] = origin[[51, 50]]
    save({"origin": np.ascontiguousarray(origin)}, path)
    resigned(tmp_path / "small")
    done = call("verify", "vocab", str(made / "base"), "small")
    assert done.code == 1 and "do not hold" in done.err


def test_a_trained_model_is_not_held_to_its_rows(call: Run, made: Path, tmp_path: Path) -> None:
    folder = copy(made, "init", tmp_path)
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["verb"] = "cpt"
    (folder / "artifact.json").write_text(json.dumps(manifest))
    resigned(folder)
    found = json.loads(call("verify", "vocab", str(made / "base"), "init", "--json").out)
    assert found["holds"] and any("verify shield" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "did you mean `langadapt verify artifact`", ("artefact", "x")),
        (2, "takes DIR, not 2", ("artifact", "a", "b")),
        (2, "takes BASE EXTENDED, not 1", ("vocab", "a")),
        (2, "takes no --text", ("artifact", "a", "--text", "b")),
        (2, "is not an amount", ("vocab", "a", "b", "--max-bytes", "x")),
        (3, "`none` does not exist", ("artifact", "none")),
        (3, "is not an artifact", ("artifact", "empty")),
        (3, "does not exist", ("vocab", "./none", "empty")),
        (3, "is empty", ("vocab", "", "empty")),
        (3, "is empty", ("artifact", "")),
        (3, "is empty", ("shield", "empty", "empty", "--selection", " ")),
        (3, "has no tokenizer.json", ("vocab", "empty", "empty")),
    ],
)
def test_what_is_refused(call: Run, tmp_path: Path, code: int, words: str, arguments: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    done = call("verify", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert words in done.err and "internal error" not in done.err


def test_the_tokenizer_of_another_base(call: Run, made: Path, tmp_path: Path) -> None:
    """Its base has more tokens: the two do not belong together, which is no broken promise."""
    done = call("verify", "vocab", str(made / "append"), str(made / "append"))
    assert done.code == 3 and "was made for another model" in done.err
