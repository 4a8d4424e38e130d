"""A .gguf file, written here tensor by tensor, comes out as the model it was made from."""

import json
import stat
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from langadapt.core.artifact import open_artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Note, Progress
from langadapt.model.load import load_model, load_tokenizer, resolve
from langadapt.model.weights import open_weights
from tests.fixtures.tiny import TEMPLATE

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def gguf_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_NAMES[rest]}"


def permuted(values: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp stores query and key rows of each head interleaved: first half and second half take turns."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(folder: Path, path: Path) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = content["model"]["vocab"] | {entry["content"]: entry["id"] for entry in content["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([3 if id < 4 else 1 for id in range(len(vocabulary))])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(3)
    writer.add_chat_template(TEMPLATE)
    weights = open_weights(folder)
    for name in weights.tensors:
        values = weights.read(name).numpy()
        if "q_proj" in name or "k_proj" in name:
            values = permuted(values, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
        writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_a_plain_folder_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tiny, tmp_path / "m.gguf")
    notes: list[object] = []
    folder = resolve(str(file), Progress(notes.append))
    assert [event for event in notes if isinstance(event, Note)]
    assert folder.parent == tmp_path / "cache" / "models"
    artifact = open_artifact(folder, "model")
    artifact.verify()
    assert artifact.manifest["verb"] == "import-model" and artifact.facts["dtype"] == "float32"
    before, after = load_model(tiny), load_model(folder)
    for (name, first), (_, second) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert torch.equal(first, second), name
    assert after.generation_config.eos_token_id == 2
    old, new = load_tokenizer(tiny), load_tokenizer(folder)
    text = "the river and the Brücke; 老"
    assert new(text).input_ids == old(text).input_ids
    assert new.chat_template == TEMPLATE
    again = resolve(str(file))
    assert again == folder and (folder / "run.json").stat().st_mtime_ns == (again / "run.json").stat().st_mtime_ns


def test_a_cut_gguf_file_is_an_input_error_and_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tiny, tmp_path / "m.gguf")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    assert stat.S_ISREG(file.stat().st_mode)
    with pytest.raises(DataError, match="cannot be read as a GGUF model"):
        resolve(str(file))
    assert not list((tmp_path / "cache" / "models").glob("gguf-*"))
