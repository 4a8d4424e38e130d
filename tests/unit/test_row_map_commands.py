"""Stored row maps at work: a row explained, a map applied to a sibling, an adapted model taken back to its base."""

import json
import shlex
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import langadapt
from langadapt.cli.app import main
from langadapt.cli.show_token import show_tokens
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import sha256_file
from langadapt.core.manifest import checksum
from langadapt.core.registry import load_method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.explain import explain, line_of
from langadapt.embed.rowmap import load_maps, save_maps
from langadapt.embed.stored import StoredMaps, vocabulary_digest
from langadapt.model.tables import open_tables
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.given import World, some_table, world
from tests.fixtures.tiny import tiny_corpus, tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "init-embeddings.md"
KINDS: dict[str, dict[str, Any]] = {
    "tied": {"dtype": "bfloat16"},
    "untied": {"tied": False},
    "padded": {"padded_rows": 9},
    "bias": {"head_bias": True},
}


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def sibling(base: Path, folder: Path, seed: int = 7) -> Path:
    """The same model after other training: every value is another."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    random = torch.Generator().manual_seed(seed)
    for name in sorted(tensors):
        tensors[name] += torch.randn(tensors[name].shape, generator=random).to(tensors[name].dtype) * 0.1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_cut_map_and_an_empty_token_are_told_in_words(
    place: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut é"
    shutil.copytree(place.files["like"], cut)
    file = cut / "row_map.safetensors"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"row_map\.safetensors` cannot be read"):
        load_maps(cut)
    with pytest.raises(ConfigError, match="`--token` is empty"):
        show_tokens(place.files["like"], [""])
    with pytest.raises(DataError, match="is no folder here"):
        show_tokens(tmp_path / "nowhere", ["sz"])
    assert not capsys.readouterr().out


# apply again


@pytest.mark.parametrize("name", ["random", "normal", "sava", "rows"])
def test_a_map_applied_to_its_own_base_gives_the_same_model(
    name: str, place: World, tiny: Path, tmp_path: Path
) -> None:
    """Sparse lines, both kinds of noise, a linear map with an offset, and rows that were given."""
    given = place.flags(name)
    options = {"scale": 0.3} if name in ("random", "normal") else {}
    first = langadapt.init_embeddings(
        model=tiny, tokenizer=place.target.folder, method=name, method_options=options, out=tmp_path / "a", **given
    )
    again = langadapt.init_embeddings(
        model=tiny, tokenizer=first, method="reapply", like=first, seed=99, out=tmp_path / "b"
    )
    assert (again.path / "model.safetensors").read_bytes() == (first.path / "model.safetensors").read_bytes()
    dense = name in ("sava", "rows")
    assert again.facts["measured"]["input"] == {
        "applied_again": first.facts["added"], "unchanged_rows": first.facts["added"] if dense else 0,
    }  # fmt: skip


def test_a_sibling_gets_the_same_sums_of_its_own_rows(tmp_path: Path) -> None:
    """The oracle: the line's weights times the sibling's rows, in float64; more spare rows change nothing."""
    base = tiny_model(tmp_path / "base", tied=False)
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    first = langadapt.init_embeddings(model=base, tokenizer=tokenizer, out=tmp_path / "a")
    other = tiny_model(tmp_path / "other", tied=False, padded_rows=40, seed=21)
    made = langadapt.init_embeddings(model=other, tokenizer=first, method="reapply", like=first, out=tmp_path / "b")
    tables, saved, maps = open_tables(other), open_tables(made.path), load_maps(first.path)
    assert made.facts["reasons"] == {f"position-weighted: {why}": n for why, n in first.facts["reasons"].items()}
    heads = (("input", tables.read_input(), saved.read_input()), ("head", tables.read_head(), saved.read_head()))
    for name, old, new in heads:
        rows = maps[name]
        for line, id in enumerate(rows.new_ids.tolist()):
            part = slice(rows.indptr[line], rows.indptr[line + 1])
            expected = rows.values[part].astype(np.float64) @ old.numpy()[rows.indices[part]].astype(np.float64)
            np.testing.assert_allclose(new[id].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_mean_of_all_rows_is_that_of_the_sibling(tiny: Path, place: World, tmp_path: Path) -> None:
    first = langadapt.init_embeddings(model=tiny, tokenizer=place.target.folder, method="mean", out=tmp_path / "a")
    other = tiny_model(tmp_path / "other", padded_rows=3, seed=21)
    made = langadapt.init_embeddings(model=other, tokenizer=first, method="reapply", like=first, out=tmp_path / "b")
    old, new = open_tables(other), open_tables(made.path)
    mean = old.read_input().numpy()[old.tokens.text_ids()].mean(axis=0)
    np.testing.assert_allclose(new.read_input().numpy()[-1], mean, rtol=1e-5, atol=1e-6)


def test_maps_of_another_vocabulary_or_width_are_refused(place: World, tiny: Path, tmp_path: Path) -> None:
    reapply = load_method("embed", "reapply")
    inputs = place.inputs(some_table(place.base.size))
    stranger = place.inputs(some_table(place.base.size), population=inputs.population[1:])
    with pytest.raises(DataError, match="text tokens, this one has"):
        reapply(stranger, reapply.options())

    class Renamed:
        def __getattr__(self, name: str) -> Any:
            return getattr(place.base, name)

        def piece(self, id: int) -> str:
            return place.base.piece(id).upper() + "!"

    with pytest.raises(DataError, match=r"this base as `.*!`"):
        reapply(place.inputs(some_table(place.base.size), base=Renamed()), reapply.options())
    made = langadapt.init_embeddings(
        model=tiny, tokenizer=place.target.folder, method="rows", rows=place.files["rows"], out=tmp_path / "a"
    )
    narrow = tiny_model(tmp_path / "narrow", width=16)
    with pytest.raises(DataError, match="those of the model are 16"):
        langadapt.init_embeddings(model=narrow, tokenizer=made, method="reapply", like=made, out=tmp_path / "b")
    with pytest.raises(DataError, match="has no row_map"):
        langadapt.init_embeddings(
            model=tiny, tokenizer=place.target.folder, method="reapply", like=tiny, out=tmp_path / "c"
        )


def test_the_digest_of_the_vocabulary_is_compared(place: World, tiny: Path, tmp_path: Path) -> None:
    """Two bases may differ in tokens that no line names."""
    like = shutil.copytree(place.files["like"], tmp_path / "like")
    manifest = json.loads((like / "artifact.json").read_text(encoding="utf-8"))
    assert manifest["facts"]["base_vocabulary"]
    inputs = place.inputs(some_table(place.base.size))
    assert vocabulary_digest(inputs.base, inputs.population) == manifest["facts"]["base_vocabulary"]
    stored = StoredMaps(like, load_maps(like), "0" * 64)
    other = replace(inputs, given=replace(inputs.given, like=lambda: stored))
    reapply = load_method("embed", "reapply")
    with pytest.raises(DataError, match="other text tokens under these ids"):
        reapply(other, reapply.options())


# explain


def test_a_line_is_told_as_it_is_stored(place: World, tiny: Path, tmp_path: Path) -> None:
    inputs = place.inputs(some_table(place.base.size))
    method = load_method("embed", "position-weighted")
    rows = method(inputs, method.options())
    save_maps({"input": rows}, tmp_path)
    rows = load_maps(tmp_path)["input"]
    for line, token in enumerate(inputs.new_tokens):
        told = explain(rows, line)
        part = slice(rows.indptr[line], rows.indptr[line + 1])
        # a piece that a token has twice stands twice in its line
        stored = Counter(zip(rows.indices[part].tolist(), rows.values[part].tolist(), strict=True))
        assert told.piece == token.piece and told.content == token.content and told.why
        assert Counter((id, weight) for weight, id, _ in told.parts) <= stored
        assert all(place.base.piece(id) == piece for _, id, piece in told.parts)
        assert sum(weight for weight, _, _ in told.parts) + told.more_weight == pytest.approx(1, abs=1e-5)
    assert line_of(rows, 0) is None and line_of(rows, int(rows.new_ids[2])) == 2


def test_long_lines_noise_means_and_rows_that_were_given_are_told(place: World) -> None:
    inputs = place.inputs(some_table(place.base.size))
    tokens = inputs.new_tokens
    builder = RowMapBuilder(inputs, "m")
    weights = np.arange(1, 31) / 465
    ids = inputs.population[:30]
    builder.many(tokens[:1], [0, 30], ids, weights, "long")
    builder.drawn(tokens[1], 0.25, "drawn")
    builder.dense(tokens[2:3], some_table(1, 3), "dense", matrix=some_table(3, 8))
    builder.many(tokens[3:4], [0, 2], ids[:2], [1.5, -0.5], "signed", scaled=False)
    for token in tokens[4:]:
        builder.mean(token, [int(ids[3])], "copy")
    rows = builder.build()
    long = explain(rows, 0)
    assert [id for _, id, _ in long.parts] == ids[::-1][:16].tolist() and long.more == 14
    assert [piece for _, _, piece in long.parts] == [place.base.piece(id) for id in ids[::-1][:16].tolist()]
    assert long.more_weight == pytest.approx(weights[:14].sum(), abs=1e-6) and "and 14 more of 0.23" in long.formula()
    assert explain(rows, 1).formula() == (
        f"mean of {len(inputs.population)} text rows + noise of 0.25 standard deviations in each dimension"
    )
    assert explain(rows, 2).formula().startswith("a vector of 3 numbers times a matrix [3, 8], which")
    first, second = place.base.piece(int(ids[0])), place.base.piece(int(ids[1]))
    assert explain(rows, 3).formula() == f"1.50 `{first}` - 0.50 `{second}`"
    assert explain(rows, 4).formula(str.upper) == f"`{place.base.piece(int(ids[3])).upper()}`"


# undo


@pytest.mark.parametrize("kind", KINDS)
def test_undo_gives_the_base_bit_for_bit(kind: str, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", **KINDS[kind])
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    made = langadapt.init_embeddings(model=base, tokenizer=tokenizer, out=tmp_path / "a", pad_to_multiple_of=8)
    back = langadapt.init_embeddings(model=made, tokenizer=base, undo=True, out=tmp_path / "b")
    tables = ["input", "head", "bias"] if kind == "bias" else ["input", "head"] if kind == "untied" else ["input"]
    if kind == "padded":
        # five new tokens took spare rows over: those are not the base's, the other four are
        assert back.facts["undone"]["spare_rows_lost"] == 5 and back.facts["undone"]["same_as_base"] == []
        size = open_tables(base).tokens.size
        before, after = open_tables(base).read_input(), open_tables(back.path).read_input()
        assert before.shape == after.shape and torch.equal(before[:size], after[:size])
        assert torch.equal(before[size + 5 :], after[size + 5 :])
        return
    assert back.facts["undone"] == {"same_as_base": tables, "not_as_base": [], "spare_rows_lost": 0}
    assert (back.path / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    for name in ("config.json", "tokenizer.json"):
        assert json.loads((back.path / name).read_text()) == json.loads((base / name).read_text())


def test_undo_brings_rows_back_to_old_ids_and_keeps_spare_ones(tmp_path: Path) -> None:
    """A tokenizer with the same tokens in another order, as an artifact that moved rows."""
    base = tiny_model(tmp_path / "base", padded_rows=3)
    tokens = open_tables(base).tokens
    other = tmp_path / "tok"
    shutil.copytree(base, other, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    content = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    highest = max(content["model"]["vocab"].values())
    fixed = {entry["id"] for entry in content["added_tokens"]}
    movable = [id for id in sorted(content["model"]["vocab"].values()) if id not in fixed and id <= highest]
    moved = dict(zip(movable, reversed(movable), strict=True))
    content["model"]["vocab"] = {piece: moved.get(id, id) for piece, id in content["model"]["vocab"].items()}
    (other / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    made = langadapt.init_embeddings(model=base, tokenizer=other, out=tmp_path / "a")
    assert (made.path / "row_origin.safetensors").is_file()
    assert not torch.equal(
        open_tables(made.path).read_input()[: tokens.size], open_tables(base).read_input()[: tokens.size]
    )
    back = langadapt.init_embeddings(model=made, tokenizer=base, undo=True, out=tmp_path / "b")
    before, after = open_tables(base).read_input(), open_tables(back.path).read_input()
    assert before.shape == after.shape and torch.equal(before[: tokens.size], after[: tokens.size])


def test_undo_after_training_says_so_and_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    made = langadapt.init_embeddings(model=base, tokenizer=tokenizer, out=tmp_path / "a")
    # as cpt leaves it: other values, the facts kept
    trained = sibling(made.path, tmp_path / "trained")
    manifest = json.loads((trained / "artifact.json").read_text(encoding="utf-8"))
    file = trained / "model.safetensors"
    manifest["files"]["model.safetensors"] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    manifest["checksum"] = checksum(manifest)
    (trained / "artifact.json").write_text(json.dumps(manifest), encoding="utf-8")
    back = langadapt.init_embeddings(model=trained, tokenizer=base, undo=True, out=tmp_path / "b")
    assert back.facts["undone"] == {"same_as_base": [], "not_as_base": ["input"], "spare_rows_lost": 0}
    assert torch.equal(open_tables(back.path).read_input(), open_tables(trained).read_input()[: open_tables(base).rows])
    for model, tok, more, error, message in (
        (base, base, {}, ConfigError, "does not say what it was made from"),
        (made, base, {"pad_to_multiple_of": 8}, ConfigError, "`pad_to_multiple_of` has no use"),
        (made, tokenizer, {}, DataError, "is not the tokenizer of the model"),
    ):
        with pytest.raises(error, match=message):
            langadapt.init_embeddings(model=model, tokenizer=tok, undo=True, out=tmp_path / "no", **more)


def test_what_was_undone_is_not_undone_again(tmp_path: Path, tiny: Path) -> None:
    made = langadapt.init_embeddings(
        model=tiny, tokenizer=extended_tokenizer(tiny, tmp_path / "tok"), out=tmp_path / "a"
    )
    back = langadapt.init_embeddings(model=made, tokenizer=tiny, undo=True, out=tmp_path / "b")
    with pytest.raises(ConfigError, match="was taken back to its base's vocabulary already"):
        langadapt.init_embeddings(model=back, tokenizer=tiny, undo=True, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_rows_that_were_dropped_cannot_come_back(tmp_path: Path, tiny: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus", "hu", 40)
    small = langadapt.trim_vocab(model=tiny, corpora=[corpus], out=tmp_path / "trim")
    made = langadapt.init_embeddings(model=tiny, tokenizer=small, out=tmp_path / "a")
    with pytest.raises(DataError, match=rf"lost {made.facts['dropped']:,} of the .* rows that are asked for"):
        langadapt.init_embeddings(model=made, tokenizer=tiny, undo=True, out=tmp_path / "b")


# the page's own example


def test_the_commands_of_the_page_run_word_for_word(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## The row map at work")[2].partition("\n## ")[0]
    commands = [line.strip() for line in text.splitlines() if line.startswith("    langadapt ")]
    assert [line.split()[1] for line in commands] == ["show", "init-embeddings", "init-embeddings"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, "models/smollm2")
    sibling(tiny, tmp_path / "models/smollm2-instruct")
    pieces = [open_tables(tiny).tokens.piece(id) for id in open_tables(tiny).tokens.spell("ország".encode())]
    merges = [("".join(pieces[:n]), pieces[n]) for n in range(1, len(pieces))]
    tokenizer = extended_tokenizer(tiny, tmp_path / "tok", merges)
    langadapt.init_embeddings(model="models/smollm2", tokenizer=tokenizer, out="runs/init")
    for command in commands:
        with pytest.raises(SystemExit) as left:
            main(shlex.split(command)[1:])
        assert left.value.code in (0, None), capsys.readouterr().err
        if " show " in command:
            shown = capsys.readouterr().out
            assert "position-weighted" in shown and "ország" in shown
    with pytest.raises(SystemExit):
        main(["show", "runs/init", "--token", "országok", "--token", "the", "--json"])
    assert "its pieces are `ország` + " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["show", "runs/init", "--token", "e", "--json"])
    [kept] = json.loads(capsys.readouterr().out)["tokens"]
    assert kept["input"] == {
        "method": None,
        "old_id": kept["id"],
        "formula": f"row {kept['id']} of the base, bit for bit",
    }
    old = load_file("models/smollm2/model.safetensors")
    assert all(torch.equal(value, old[name]) for name, value in load_file("runs/back/model.safetensors").items())
    assert open_tables(Path("runs/instruct")).rows == open_tables(Path("runs/init")).rows
