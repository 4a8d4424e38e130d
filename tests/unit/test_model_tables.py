"""Tables and tokens: what is found in a model folder, by architecture, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, trainers

from langadapt.core.errors import DataError
from langadapt.model.facts import model_facts
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.matching import match
from langadapt.model.save import write_model
from langadapt.model.separator import candidates
from langadapt.model.tables import TableNames, open_tables, table_names
from langadapt.model.token_table import TokenTable
from langadapt.model.weights import open_weights
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.tiny import tiny_model


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({}, TableNames("model.embed_tokens.weight")),
        ({"tied": False}, TableNames("model.embed_tokens.weight", "lm_head.weight")),
        ({"arch": "gpt2"}, TableNames("transformer.wte.weight")),
        ({"arch": "gemma2"}, TableNames("model.embed_tokens.weight")),
        ({"head_bias": True}, TableNames("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias")),
    ],
)
def test_names_come_from_the_architecture(how: dict[str, object], names: TableNames, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "m", **how)  # type: ignore[arg-type]
    tables = open_tables(folder)
    model = load_model(folder)
    assert tables.names == names == table_names(model)
    assert torch.equal(tables.read_input(), model.get_input_embeddings().weight)
    assert torch.equal(tables.read_head(), model.get_output_embeddings().weight)
    assert (tables.read_bias() is None) == (names.bias is None)
    assert tables.tied == (names.head is None)


@pytest.mark.parametrize("how", [{}, {"tied": False}, {"arch": "gpt2", "dtype": "bfloat16"}, {"padded_rows": 5}])
def test_facts_without_loading_equal_the_loaded_model(how: dict[str, object], tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "m", **how)  # type: ignore[arg-type]
    facts, model = model_facts(folder), load_model(folder)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (facts["rows"], facts["hidden_size"]) == tuple(model.get_input_embeddings().weight.shape)
    assert facts["layers"] == 2 and facts["tied"] == bool(how.get("tied", True))
    assert facts["dtype"] == how.get("dtype", "float32")


def test_every_token_stands_for_its_bytes(tiny: Path) -> None:
    table, tokenizer = TokenTable.from_folder(tiny), load_tokenizer(tiny)
    assert table.size == len(tokenizer)
    for id in range(table.size):
        decoded = tokenizer.decode([id], clean_up_tokenization_spaces=False)
        assert table.bytes_of(id).decode("utf-8", "replace") == decoded
    assert table.special_ids == frozenset(tokenizer.all_special_ids) == {0, 1, 2, 3}
    assert table.kind_of(0) == "special" and table.kind_of(10) == "text"


@pytest.mark.parametrize("text", ["the house", " river", "zxq", "ű", "\n\n", "\x00", "日本", "the river and the"])
def test_spelling_joins_to_the_bytes(text: str, tiny: Path) -> None:
    table = TokenTable.from_folder(tiny)
    ids = table.spell(text.encode())
    assert b"".join(table.bytes_of(id) for id in ids) == text.encode()
    assert not set(ids) & table.special_ids


def test_spelling_takes_bytes_that_are_no_text_and_no_special_token(tiny: Path) -> None:
    table = TokenTable.from_folder(tiny)
    assert [table.bytes_of(id) for id in table.spell(b"\xc5")] == [b"\xc5"]
    assert table.spell(b"") == []
    assert not set(table.spell(b"<|endoftext|>")) & table.special_ids


def test_spelling_ignores_a_token_of_the_same_string(tiny: Path, tmp_path: Path) -> None:
    """With `ignore_merges` the model would give a token that no merge makes."""
    folder = extended_tokenizer(tiny, tmp_path / "t")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"] |= {"ignore_merges": True, "merges": content["model"]["merges"][: -len(MERGES)]}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert len(TokenTable.from_folder(folder).spell(b"sze")) > 1


@pytest.mark.parametrize("family", ["WordLevel", "character"])
def test_other_families_are_refused_by_name(family: str, tmp_path: Path) -> None:
    made, trainer = {
        "WordLevel": (models.WordLevel(unk_token="?"), trainers.WordLevelTrainer(special_tokens=["?"])),
        "character": (models.BPE(), trainers.BpeTrainer()),
    }[family]
    tokenizer = Tokenizer(made)
    tokenizer.train_from_iterator(["some words of text"] * 3, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=f"{family}.* not supported yet"):
        TokenTable.from_folder(tmp_path)


def test_match_finds_what_is_new_and_reads_the_vocabulary_map(tiny: Path, tmp_path: Path) -> None:
    folder = extended_tokenizer(tiny, tmp_path / "t")
    base = TokenTable.from_folder(tiny)
    lines = [{"vocabulary_before": base.size}, {"id": base.size, "count": 7, "reason": "merge 0"}]
    (folder / "vocab_map.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = match(base, TokenTable.from_folder(folder), base_rows=base.size)
    assert [token.content for token in found.new_tokens] == [b"sz", b"sze", b" sze", "ú".encode(), b"szesz"]
    assert (found.new_tokens[0].count, found.new_tokens[0].reason) == (7, "merge 0")
    assert found.new_rows == base.size + len(MERGES)
    assert found.kept == {id: id for id in range(base.size)}


def test_match_refuses_a_tokenizer_of_another_model(tiny: Path, tmp_path: Path) -> None:
    folder = extended_tokenizer(tiny, tmp_path / "t")
    base = TokenTable.from_folder(tiny)
    (folder / "vocab_map.jsonl").write_text('{"vocabulary_before": 128256}\n', encoding="utf-8")
    with pytest.raises(DataError, match="its base has 128,256 tokens"):
        match(base, TokenTable.from_folder(folder), base_rows=base.size)
    (folder / "vocab_map.jsonl").write_text('{"vocabulary_before": 358}\n', encoding="utf-8")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="2 of its"):
        match(base, TokenTable.from_folder(folder), base_rows=base.size)
    # one that does not say that it extends this one is taken for what it is
    (folder / "vocab_map.jsonl").unlink()
    found = match(base, TokenTable.from_folder(folder), base_rows=base.size)
    ids = vocabulary["a"], vocabulary["b"]
    assert found.renumbered and found.kept[ids[0]] == ids[1] and found.kept[ids[1]] == ids[0]


def test_separator_candidates_have_each_id_once(tiny: Path) -> None:
    assert candidates(load_tokenizer(tiny)) == {"<s>": 1, "</s>": 2, "<|endoftext|>": 0}


def sharded(tiny: Path, folder: Path) -> Path:
    load_model(tiny).save_pretrained(folder, max_shard_size="30KB")
    for path in tiny.iterdir():
        if path.name.startswith(("tokenizer", "chat")):
            shutil.copyfile(path, folder / path.name)
    return folder


def test_write_model_replaces_one_tensor_and_copies_the_rest_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    base = sharded(tiny, tmp_path / "base")
    weights = open_weights(base)
    assert len(weights.shards) > 1
    name = "model.layers.1.mlp.up_proj.weight"
    values = torch.full(weights.tensors[name].shape, 0.5)
    out = tmp_path / "out"
    out.mkdir()
    write_model(base, out, {name: lambda: values})
    written = open_weights(out)
    assert written.tensors.keys() == weights.tensors.keys()
    assert torch.equal(written.read(name), values)
    for other in weights.tensors.keys() - {name}:
        assert torch.equal(weights.read(other), written.read(other))
    loaded = load_model(out)
    assert torch.equal(loaded.get_parameter(name), values)
    assert load_tokenizer(out).chat_template == load_tokenizer(tiny).chat_template
    for path in out.iterdir():
        assert path.stat().st_nlink == 1
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    write_model(base, nothing, {})
    for shard in weights.shards:
        assert (nothing / shard.name).read_bytes() == shard.read_bytes()


def test_write_model_keeps_the_stored_dtype_and_refuses_wrong_values(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", dtype="float16")
    name = "model.norm.weight"
    for value, problem in ((torch.ones(3), "has shape"), (torch.full((32,), 1e30), "cannot hold")):
        with pytest.raises(Exception, match=problem):
            write_model(base, tmp_path, {name: value})
    with pytest.raises(DataError, match="no tensor `nothing`"):
        write_model(base, tmp_path, {"nothing": torch.ones(3)})
    out = tmp_path / "out"
    out.mkdir()
    write_model(base, out, {name: torch.full((32,), 1.5, dtype=torch.float64)})
    assert open_weights(out).read(name).dtype == torch.float16
