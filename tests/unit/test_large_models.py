"""Big models on small machines: whole shards are copied, holes stay holes, and only the tables are in memory."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import langadapt
from langadapt.core import copying
from langadapt.core.copying import copy_file
from langadapt.core.errors import LangadaptError
from langadapt.embed import checks as checks_file
from langadapt.model import save
from langadapt.model.save import write_model
from langadapt.model.weights import open_weights, read_header
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.tiny import tiny_model

MEGABYTE = 1_000_000
# Runs in a process of its own: peak memory above that of a process which has done the same on a tiny model.
CHILD = """
import json, re, sys
from pathlib import Path
import langadapt
from langadapt.model.weights import Weights

tiny, tiny_tokenizer, base, tokenizer, out = map(Path, sys.argv[1:])

def status(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

langadapt.init_embeddings(model=tiny, tokenizer=tiny_tokenizer, checks="files", out=out / "warm")
read, names = Weights.read, set()
Weights.read = lambda self, name: names.add(name) or read(self, name)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
made = langadapt.init_embeddings(model=base, tokenizer=tokenizer, checks="files", out=out / "made")
print(json.dumps({"peak": status("VmHWM") - before, "read": sorted(names), "facts": made.facts}))
"""


def sparse_file(path: Path, shapes: dict[str, list[int]]) -> int:
    """A bfloat16 safetensors file whose values are one hole; its length."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(shapes.items()):
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    return end


def big_model(folder: Path, tiny: Path, *, rows: int, width: int, inner: int, layers: int, heads: int, kv: int) -> Path:
    """A Llama whose tables have values and whose body is holes: a file a layer, as hubs have them for large models."""
    folder.mkdir()
    for path in tiny.iterdir():
        if path.name.startswith(("tokenizer", "special", "generation")):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": width // heads, "vocab_size": rows, "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    block = torch.randn((512, width), generator=torch.Generator().manual_seed(1)).bfloat16()
    places: dict[str, str] = {}
    for name, file in (
        ("model.embed_tokens.weight", "model-00.safetensors"),
        ("lm_head.weight", "model-99.safetensors"),
    ):
        table = block.repeat(-(-rows // 512), 1)[:rows].contiguous()
        norm = {"model.norm.weight": torch.ones(width).bfloat16()} if name.startswith("lm") else {}
        save_file({name: table, **norm}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys([name, *norm], file)
    for layer in range(layers):
        shapes = {
            "input_layernorm": [width], "post_attention_layernorm": [width],
            "self_attn.q_proj": [width, width], "self_attn.o_proj": [width, width],
            "self_attn.k_proj": [width // heads * kv, width], "self_attn.v_proj": [width // heads * kv, width],
            "mlp.gate_proj": [inner, width], "mlp.up_proj": [inner, width], "mlp.down_proj": [width, inner],
        }  # fmt: skip
        named = {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
        sparse_file(folder / f"model-{layer + 1:02}-body.safetensors", named)
        places |= dict.fromkeys(named, f"model-{layer + 1:02}-body.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def adapt(tiny: Path, folder: Path, **shape: int) -> tuple[dict[str, Any], Path, Path]:
    """(what the child says, base, result)."""
    base = big_model(folder / "base", tiny, **shape)
    tokenizer = extended_tokenizer(tiny, folder / "tokenizer")
    arguments = [str(path) for path in (tiny, tokenizer, base, tokenizer, folder)]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), base, folder / "made"


def check_large(tiny: Path, folder: Path, **shape: int) -> None:
    said, base, made = adapt(tiny, folder, **shape)
    tables = 2 * 2 * shape["rows"] * shape["width"]
    assert said["peak"] < 3 * tables, f"{said['peak'] / MEGABYTE:.0f} MB for tables of {tables / MEGABYTE:.0f} MB"
    # the norm is in the file of the head, which is written anew
    assert set(said["read"]) <= {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}
    bodies = sorted(base.glob("*-body.safetensors"))
    assert len(bodies) == shape["layers"]
    for path in bodies:
        old, new = path.stat(), (made / path.name).stat()
        assert (new.st_size, new.st_nlink, old.st_nlink) == (old.st_size, 1, 1) and new.st_ino != old.st_ino
        assert new.st_blocks * 512 <= old.st_blocks * 512 + MEGABYTE, "a sparse file became dense"
        assert {name: info.shape for name, info in read_header(path).items()} == {
            name: info.shape for name, info in read_header(made / path.name).items()
        }
    assert said["facts"]["head_mass_nats_mean"] is None and said["facts"]["added"] == len(MERGES)
    before, after = open_weights(base), open_weights(made)
    size = 256
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(before.read(name)[:size], after.read(name)[:size])


@pytest.mark.timeout(600)
def test_only_the_tables_are_in_memory_and_all_other_files_are_copied(tiny: Path, tmp_path: Path) -> None:
    """Four layers of 137 MB each beside two tables of 101 MB: loading the body would break the bound."""
    check_large(tiny, tmp_path, rows=65_536, width=768, inner=28_672, layers=4, heads=8, kv=8)


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_a_model_of_70b_shape(tiny: Path, tmp_path: Path) -> None:
    """137 GB of body in holes, tables of 2.1 GB each: some 11 GB of memory; most of the time is for digests."""
    check_large(tiny, tmp_path, rows=128_256, width=8192, inner=28_672, layers=80, heads=64, kv=8)


# the parts


def two_shards(folder: Path) -> Path:
    """The tiny model with its tables in one file and its body in another."""
    base = tiny_model(folder, tied=False)
    tensors = {name: open_weights(base).read(name).clone() for name in open_weights(base).tensors}
    own = {"model.embed_tokens.weight", "lm_head.weight"}
    places = {name: "a.safetensors" if name in own else "b.safetensors" for name in tensors}
    for file in ("a.safetensors", "b.safetensors"):
        part = {name: tensor for name, tensor in tensors.items() if places[name] == file}
        save_file(part, base / file, metadata={"format": "pt", "by": "somebody"})
    (base / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return base


def test_a_file_without_a_table_is_copied_byte_for_byte_and_never_linked(tmp_path: Path) -> None:
    base = two_shards(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    head = torch.ones_like(open_weights(base).read("lm_head.weight"))
    write_model(base, out, {"lm_head.weight": head})
    assert (out / "b.safetensors").read_bytes() == (base / "b.safetensors").read_bytes()
    assert (out / "b.safetensors").stat().st_ino != (base / "b.safetensors").stat().st_ino
    assert torch.equal(open_weights(out).read("lm_head.weight"), head)
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))
    total = sum(info.bytes for info in open_weights(base).tensors.values())
    assert index["metadata"]["total_size"] == total
    before = (base / "b.safetensors").read_bytes()
    with (out / "b.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert (base / "b.safetensors").read_bytes() == before


def test_files_only_checks_see_a_copy_that_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = two_shards(tmp_path / "base")
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    whole = langadapt.init_embeddings(model=base, tokenizer=tokenizer, out=tmp_path / "full")
    files = langadapt.init_embeddings(model=base, tokenizer=tokenizer, checks="files", out=tmp_path / "files")
    for name in ("a.safetensors", "b.safetensors"):
        assert (whole.path / name).read_bytes() == (files.path / name).read_bytes()
    assert whole.facts["head_mass_nats_mean"] is not None and files.facts["head_mass_nats_mean"] is None

    def padded(source: Path, target: Path) -> None:
        """The same tensors behind a header of another length."""
        raw = source.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        target.write_bytes((length + 8).to_bytes(8, "little") + raw[8 : 8 + length] + b" " * 8 + raw[8 + length :])

    monkeypatch.setattr(save, "copy_file", padded)
    with pytest.raises(LangadaptError, match="all other tensors are the same bytes"):
        langadapt.init_embeddings(model=base, tokenizer=tokenizer, checks="files", out=tmp_path / "bad")
    assert langadapt.init_embeddings(model=base, tokenizer=tokenizer, out=tmp_path / "same").facts["checks"] > 10


def test_no_model_is_loaded_where_only_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = two_shards(tmp_path / "base")
    tokenizer = extended_tokenizer(base, tmp_path / "tok")

    def never(*given: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checks_file, "_compare_models", never)
    made = langadapt.init_embeddings(model=base, tokenizer=tokenizer, checks="files", out=tmp_path / "out")
    names = [check["name"] for check in json.loads((made.path / "checks.json").read_text(encoding="utf-8"))]
    assert "models were not loaded: hidden states are not compared" in names


@pytest.mark.parametrize("holes", [True, False])
def test_data_between_holes_is_copied_and_holes_stay(
    holes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        for place, content in ((0, b"head" * 1000), (9 * MEGABYTE, b"middle" * 3000), (30 * MEGABYTE, b"end")):
            file.seek(place)
            file.write(content)
        file.truncate(40 * MEGABYTE)
    if not holes:
        monkeypatch.delattr(os, "SEEK_DATA")
    monkeypatch.setattr(copying, "_BLOCK", 4096)
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    if holes:
        assert target.stat().st_blocks <= source.stat().st_blocks + 64
    copy_file(source, target)  # an older file there is replaced whole
    (tmp_path / "empty").touch()
    copy_file(tmp_path / "empty", target)
    assert target.read_bytes() == b""


def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def ioctl(writer: int, request: int, reader: int) -> None:
        asked.append((request, os.fstat(reader).st_size))

    source = tmp_path / "a"
    source.write_bytes(b"x" * 10)
    assert copying.fcntl is not None
    monkeypatch.setattr(copying.fcntl, "ioctl", ioctl)
    copy_file(source, tmp_path / "b")
    assert asked == [(0x40049409, 10)] and (tmp_path / "b").read_bytes() == b""  # the file system would have done it

    def refuse(*given: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(copying.fcntl, "ioctl", refuse)
    copy_file(source, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"x" * 10
