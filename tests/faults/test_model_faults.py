"""Models that are cut, forged, poisoned or dangerous: refused with the right exit code, and nothing of them is run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3nTextConfig

import langadapt
from langadapt.core.artifact import open_artifact
from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.host import spending
from langadapt.core.types import Movable
from langadapt.model.load import load_model, resolve
from langadapt.model.save import write_model
from langadapt.model.tables import open_tables
from langadapt.model.weights import open_weights, read_header
from langadapt.train.trainable import make_trainable
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.tiny import tiny_model


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A tied model that a test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture
def copy_untied(tiny_untied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_untied, tmp_path / "copy-untied"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def initialise(base: Path, place: Path, **values: Any) -> Any:
    tokenizer = extended_tokenizer(base, place / "tokenizer")
    return langadapt.init_embeddings(out=place / "out", model=base, tokenizer=tokenizer, **values)


# Row 14: truncated weights


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_row_14_a_cut_file_is_named_with_its_bytes(keep: int, copy: Path, tmp_path: Path) -> None:
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:keep])
    there = len(content[:keep])
    for attempt in (lambda: load_model(copy), lambda: initialise(copy, tmp_path)):
        shutil.rmtree(tmp_path / "tokenizer", ignore_errors=True)
        with pytest.raises(DataError) as caught:
            attempt()
        assert "model.safetensors" in caught.value.message and f"{there:,}" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_row_14_bytes_after_the_last_tensor_are_refused(copy: Path) -> None:
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0" * 16)
    with pytest.raises(DataError, match="belong to no tensor"):
        open_weights(copy)


def test_row_14_a_missing_shard_is_named(tiny: Path, tmp_path: Path) -> None:
    load_model(tiny).save_pretrained(tmp_path, max_shard_size="30KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(DataError, match=shard.name):
        open_weights(tmp_path)


# Row 15: a flipped bit


def test_row_15_a_flipped_bit_in_any_file_is_found(tiny: Path, tmp_path: Path) -> None:
    made = initialise(tiny, tmp_path)
    for name in made.manifest["files"]:
        path = made.path / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="SHA-256") as caught:
            open_artifact(made.path).verify()
        assert name in caught.value.message
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    open_artifact(made.path).verify()


# Row 16: forged headers


def with_header(path: Path, header: bytes, body: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


def entry(begin: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"a":1}', "not valid"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', "twice"),
        (json.dumps({"a": entry(0, 4), "b": entry(2, 6)}).encode(), "begin at 2"),
        (json.dumps({"a": entry(0, 4), "b": entry(6, 10)}).encode(), "begin at 6"),
        (json.dumps({"a": entry(0, 4, shape=(-1,))}).encode(), "not valid"),
        (json.dumps({"a": entry(0, 4, dtype="F31")}).encode(), "not valid"),
        (json.dumps({"a": entry(0, 4, dtype="F64")}).encode(), "needs 8"),
        (json.dumps({"a": entry(0, 4, shape=(2**62, 2**62))}).encode(), "needs"),
        (b'{"a":' * 100_000, "not JSON"),
    ],
)
def test_row_16_forged_headers(header: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read_header(with_header(tmp_path / "a.safetensors", header, bytes(10)))


def test_row_16_a_huge_header_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((4 * 10**9).to_bytes(8, "little"))
        file.truncate(5 * 10**9)  # sparse: takes no disk
    with spending() as spent, pytest.raises(DataError, match="claims a header"):
        read_header(path)
    assert (spent.memory_bytes or 0) < 50_000_000


@pytest.mark.parametrize("target", ["../outside.safetensors", "/etc/passwd", "pytorch_model.bin"])
def test_row_16_an_index_cannot_point_elsewhere(target: str, copy: Path) -> None:
    (copy / "model.safetensors").rename(copy.parent / "outside.safetensors")
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": target}}), encoding="utf-8")
    with pytest.raises(DataError, match="not a safetensors file in the same folder"):
        open_weights(copy)


# Row 39: sizes that do not fit


def test_row_39_tokenizer_larger_than_table_gives_three_numbers(tiny: Path, copy: Path, tmp_path: Path) -> None:
    extended = extended_tokenizer(tiny, tmp_path / "t")
    shutil.copyfile(extended / "tokenizer.json", copy / "tokenizer.json")
    with pytest.raises(DataError, match="config says 358, the input table has 358 rows, the tokenizer 363 ids"):
        open_tables(copy)


def test_row_39_config_that_disagrees_gives_three_numbers(copy: Path) -> None:
    edit_json(copy / "config.json", lambda config: config.update(vocab_size=400))
    with pytest.raises(DataError, match="config says 400, the input table has 358 rows, the tokenizer 358 ids"):
        open_tables(copy)


@pytest.mark.parametrize(("padding", "rows"), [(3, 363), (5, 363), (90, 448)])
def test_row_39_spare_rows_are_used_first_and_never_lost(padding: int, rows: int, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", padded_rows=padding)
    made = initialise(base, tmp_path)
    tables = open_tables(made.path)
    assert tables.rows == rows and tables.tokens.size == 363
    old, new = open_tables(base).read_input(), tables.read_input()
    assert torch.equal(old[:358], new[:358])
    assert torch.equal(old[363:], new[363:])
    assert not torch.equal(old[358:360], new[358:360])


def test_row_39_holes_in_the_ids_are_kept(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", padded_rows=10)

    def move_last_token(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        last = max(vocabulary, key=vocabulary.__getitem__)
        vocabulary[last] += 4

    edit_json(base / "tokenizer.json", move_last_token)
    made = initialise(base, tmp_path)
    assert open_tables(made.path).tokens.kind_of(358) == "hole"
    assert made.facts["added"] == 5 and made.facts["rows"] == 368
    assert torch.equal(open_tables(base).read_input()[:362], open_tables(made.path).read_input()[:362])


def test_row_39_two_tokens_with_one_id(copy: Path) -> None:
    edit_json(copy / "tokenizer.json", lambda content: content["model"]["vocab"].update(a=98))
    with pytest.raises(DataError, match="same id 98"):
        open_tables(copy)


def test_row_39_padding_is_added_but_cannot_be_generated(tiny: Path, tmp_path: Path) -> None:
    made = initialise(tiny, tmp_path, pad_to_multiple_of=64)
    assert made.facts["rows"] == 384
    generation = json.loads((made.path / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["suppress_tokens"] == list(range(363, 384))
    assert generation["eos_token_id"] == 2


# Row 40: heads of all sorts


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "gemma2", "phi", "gpt_neox"])
def test_row_40_four_architectures_come_out_right(arch: str, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", arch=arch, tied=arch not in ("qwen2", "gpt_neox"), head_bias=arch == "phi")
    made = initialise(base, tmp_path)
    old, new = load_model(base), load_model(made.path)
    ids = torch.tensor([[1, *range(20, 60)]])
    with torch.inference_mode():
        before, after = old(ids).logits, new(ids).logits
    assert after.shape[-1] == before.shape[-1] + 5
    torch.testing.assert_close(after[..., :358], before, atol=1e-5, rtol=1e-5)
    extended = torch.tensor([[1, 358, 359, 360, 361, 362]])
    with torch.inference_mode():
        assert torch.isfinite(new(extended).logits).all()


def test_row_40_a_head_that_the_files_call_otherwise_is_written_under_that_name(tmp_path: Path) -> None:
    """transformers loads `embed_out.weight` of GPT-NeoX (Pythia) as `lm_head.weight`."""
    base, out = tiny_model(tmp_path / "base", arch="gpt_neox", tied=False), tmp_path / "out"
    model = load_model(base)
    moved = model.get_output_embeddings().weight.detach() + 1
    out.mkdir()
    write_model(base, out, {"lm_head.weight": moved})
    assert sorted(open_weights(out).tensors) == sorted(open_weights(base).tensors)
    assert torch.equal(load_model(out).get_output_embeddings().weight, moved)


def test_row_40_what_cannot_be_written_is_not_trained(tmp_path: Path) -> None:
    """The matrices of Mixtral's experts are fused when it is loaded: found at the end, the training would be lost."""
    base = tiny_model(tmp_path / "base", arch="mixtral", tied=False)
    model = load_model(base)
    everything = frozenset(name for name, _ in model.named_parameters())
    for names in (everything, frozenset({"model.layers.0.mlp.gate.weight"})):
        with pytest.raises(DataError, match="can be loaded but not written"):
            make_trainable(model, Movable(names), seed=0, folder=base, compute="fp32")
    tables = frozenset({"model.embed_tokens.weight", "lm_head.weight"})
    assert make_trainable(model, Movable(tables), seed=0, folder=base, compute="fp32").names == tables


def test_row_40_fewer_positions_than_the_checks_have_tokens(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", arch="gpt2", positions=24)
    assert initialise(base, tmp_path).facts["rows"] == 363


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_row_40_a_role_beyond_the_table_does_not_become_a_new_token(name: str, copy: Path, tmp_path: Path) -> None:
    """A padding id of one past the end is common; the first new token would be taken for padding."""
    edit_json(copy / name, lambda content: content.update(eos_token_id=[2, 358]))
    with pytest.raises(DataError, match="`eos_token_id` is 358, the tables have 358 rows"):
        initialise(copy, tmp_path)


def test_row_40_config_ties_what_the_files_hold_apart(copy: Path) -> None:
    edit_tensors(copy, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(DataError, match="two different matrices"):
        open_tables(copy)


def test_row_40_a_tied_matrix_stored_twice_stays_one(copy: Path, tmp_path: Path) -> None:
    edit_tensors(copy, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    made = initialise(copy, tmp_path)
    assert "lm_head.weight" not in open_weights(made.path).tensors
    model = load_model(made.path)
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()


def test_row_40_a_head_that_is_missing(copy_untied: Path) -> None:
    edit_tensors(copy_untied, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(DataError, match="lacks its head"):
        open_tables(copy_untied)
    with pytest.raises(DataError, match="lacks 1 tensors"):
        load_model(copy_untied)


def test_row_40_a_third_table_is_refused(copy: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    small |= {"num_kv_shared_layers": 0, "activation_sparsity_pattern": None}
    config = Gemma3nTextConfig(vocab_size=358, vocab_size_per_layer_input=358, intermediate_size=64, **small)
    config.save_pretrained(copy)
    with pytest.raises(DataError, match="another table"):
        open_tables(copy)


# Row 42: numbers that are none


@pytest.mark.parametrize(
    ("value", "problem"),
    [(float("nan"), "NaN or infinity: 20, 300"), (float("inf"), "infinity: 20, 300"), (0, "zeros")],
)
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_row_42_poisoned_rows_are_named(
    name: str, value: float, problem: str, copy_untied: Path, tmp_path: Path
) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][20] = value
        tensors[name][300] = value

    edit_tensors(copy_untied, poison)
    with pytest.raises(DataError, match=problem) as caught:
        initialise(copy_untied, tmp_path)
    assert name in caught.value.message and "20, 300" in caught.value.message


def test_row_42_zero_rows_that_no_text_token_has_are_fine(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", padded_rows=20)

    def clear(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][3] = 0
        tensors["model.embed_tokens.weight"][360:] = 0

    edit_tensors(base, clear)
    assert initialise(base, tmp_path).facts["rows"] == 378


# What a name can be


@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "no-such-model"])
def test_an_unknown_hub_id_is_an_input_error_without_network(name: str) -> None:
    with pytest.raises(DataError, match="neither a file or folder here nor a model in the local hub cache"):
        resolve(name)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGML" + bytes(100))
    with pytest.raises(DataError, match="not a GGUF file"):
        resolve(str(tmp_path / "model.gguf"))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(DataError, match="cannot be read"):
        resolve(str(tmp_path / "cut.gguf"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.json"):
        resolve(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="is a file"):
        resolve(__file__)


def test_a_model_folder_needs_no_langadapt(tiny: Path, tmp_path: Path) -> None:
    """A process that cannot import langadapt loads, renders the chat template and generates."""
    made = initialise(tiny, tmp_path)
    program = """
import sys
sys.modules["langadapt"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
text = tokenizer.apply_chat_template([{"role": "user", "content": "sze"}], tokenize=False)
assert text == "<s>user\\nsze</s>\\n", text
ids = tokenizer("szesz", return_tensors="pt").input_ids
assert ids.tolist() == [[362]], ids
print(model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=3).shape[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(made.path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 2 <= int(done.stdout) <= 5


def test_a_failed_check_stops_the_step(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the writing on purpose: the step must notice on the saved files and leave nothing behind."""
    from langadapt.embed import assemble

    good = assemble.longer

    def off_by_one(*arguments: Any) -> torch.Tensor:
        table = good(*arguments)
        table[17] += 1e-6
        return table

    monkeypatch.setattr(assemble, "longer", off_by_one)
    with pytest.raises(LangadaptError, match="old rows are the same bits"):
        initialise(tiny, tmp_path)
    assert not (tmp_path / "out").exists()
