"""Models as people have them: rare architectures, files cut and stored in odd ways, settings gone stale."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import langadapt
from langadapt.core import verb
from langadapt.core.boundary import Reading
from langadapt.core.errors import ConfigError, DataError, ResourceError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.progress import Progress
from langadapt.core.types import Movable
from langadapt.evaluate.continuations import continue_text, write
from langadapt.mixture.separator import given_separator
from langadapt.model.facts import model_facts
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.save import write_model
from langadapt.model.weights import open_weights
from langadapt.train.outlook import shape_of
from langadapt.train.price import can_be_priced
from langadapt.train.trainable import make_trainable
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.tiny import tiny_model

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def initialise(base: Path, place: Path) -> Any:
    tokenizer = extended_tokenizer(base, place / "tokenizer")
    return langadapt.init_embeddings(out=place / "out", model=base, tokenizer=tokenizer)


@pytest.mark.parametrize(("arch", "dtype"), [("bloom", "float16"), ("falcon", "bfloat16"), ("gptj", "float32"),
                                             ("opt", "float16")])  # fmt: skip
def test_extended_trained_and_written(arch: str, dtype: str, tmp_path: Path) -> None:
    """ALiBi and a norm behind the table, one key for all heads, a bias of the head, a table narrower than states."""
    base = tiny_model(tmp_path / "base", arch=arch, tied=arch != "gptj", dtype=dtype)
    made = initialise(base, tmp_path)
    assert (made.facts["layers"], made.facts["hidden_size"], made.facts["rows"]) == (2, 32, 363)
    step = verb.load("init-embeddings")
    config = step.config(model=str(base), tokenizer=str(tmp_path / "tokenizer"))
    priced = step.estimate(config, resolve_inputs(config)).facts
    # before as afterwards, also where a table is narrow; but for the bias of a head, a number a row
    assert made.facts["parameters"] - priced["parameters"] == (made.facts["added"] if arch == "gptj" else 0)
    written = load_model(made.path)
    both = {
        id(table.weight): table.weight for table in (written.get_input_embeddings(), written.get_output_embeddings())
    }
    assert shape_of(priced, 0, "embeddings").tables == sum(table.numel() for table in both.values())
    for number, adapter in enumerate((None, {"peft_type": "LORA", "target_modules": "all-linear", "r": 2})):
        model = load_model(made.path)
        tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        names = frozenset(name for name, value in model.named_parameters() if adapter is None or id(value) in tables)
        subject = make_trainable(model, Movable(names, adapter=adapter), seed=0, folder=made.path, compute="fp32")
        with torch.no_grad():
            for name, value in subject.model.named_parameters():
                value += 0.01 * (name in subject.names)
        ids = torch.tensor([[5, 300, 360, 362]])
        trained = subject.model.eval()(ids).logits.detach()
        out = tmp_path / f"trained-{number}"
        out.mkdir()
        subject.write(made.path, out, [ids[0].tolist()], progress=Progress())
        assert {str(value.dtype) for value in load_file(out / "model.safetensors").values()} == {f"torch.{dtype}"}
        again = load_model(out)(ids).logits.detach()
        assert float((again - trained).abs().max()) < (1e-4 if dtype == "float32" else 0.1)
        assert not torch.equal(again, load_model(made.path)(ids).logits)


def split(folder: Path, files: list[list[str]]) -> None:
    """Store a model in several files; names that are in none go into a last one."""
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[TABLE].clone()
    (folder / "model.safetensors").unlink()
    files = [*files, [name for name in tensors if not any(name in names for names in files)]]
    placed = {}
    for number, names in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(names, file)
    content = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_second_copy_of_the_table_in_a_file_of_its_own(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    split(base, [[HEAD], [TABLE]])
    made = initialise(base, tmp_path)
    assert [path.name[:11] for path in sorted(made.path.glob("model-*"))] == ["model-00002", "model-00003"]
    index = json.loads((made.path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    tensors = open_weights(made.path).tensors
    assert index["weight_map"] == {name: info.file.name for name, info in tensors.items()} and HEAD not in tensors
    assert load_model(made.path).get_output_embeddings().weight.shape == (363, 32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_second_copy_of_the_table_is_written_with_it(dtype: str, tmp_path: Path) -> None:
    """In float32 both were one piece of memory, which safetensors does not write: a whole training was lost."""
    base, out = tiny_model(tmp_path / "base", dtype=dtype), tmp_path / "out"
    split(base, [])
    out.mkdir()
    moved = load_model(base).get_input_embeddings().weight + 1
    write_model(base, out, {TABLE: moved})
    weights = open_weights(out)
    assert torch.equal(weights.read(TABLE), weights.read(HEAD))
    assert torch.equal(weights.read(TABLE), moved.to(getattr(torch, dtype)))


@pytest.mark.parametrize(("said", "more"), [(400, {}), (300, {"pad_token_id": 341}), (300, {})])
def test_a_config_with_another_number_of_rows(said: int, more: dict[str, int], tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    edit_json(base / "config.json", lambda config: config.update(vocab_size=said, **more))
    with pytest.raises(DataError, match=f"config says {said} tokens, the input table has 358 rows") as caught:
        load_model(base)
    assert str(caught.value.where).endswith("config.json:vocab_size")


@pytest.mark.parametrize("value", [-3, 0, "32", [1], 7])
@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "rms_norm_eps", "hidden_act"])
def test_a_config_that_makes_no_model(key: str, value: Any, tmp_path: Path, tiny: Path) -> None:
    """Whatever transformers raises then, it is said of the folder."""
    for path in tiny.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}), encoding="utf-8")
    try:
        load_model(tmp_path)
    except DataError as error:
        assert str(tmp_path) in error.message


def test_too_little_memory_for_a_model_is_no_fault_of_its_files() -> None:
    with pytest.raises(ResourceError), Reading("transformers cannot load `x`"):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")


# Settings that name ids


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("generation_config.json", {"eos_token_id": [2, 360]}, "360, the tables have 368 rows, the tokenizer 358"),
        ("config.json", {"eos_token_id": 360}, "`eos_token_id` is 360"),
        ("config.json", {"pad_token_id": 358}, "`pad_token_id` is 358"),
        ("generation_config.json", {"forced_bos_token_id": 9000}, "`forced_bos_token_id` is 9,000"),
        ("generation_config.json", {"eos_token_id": "2"}, "`eos_token_id` is '2', not the id of a token"),
        ("generation_config.json", {"eos_token_id": [[2]]}, "not the id of a token"),
        ("generation_config.json", {"suppress_tokens": 5}, "cannot be used"),
        ("generation_config.json", {"pad_token_id": -1}, ""),
        ("config.json", {"pad_token_id": 365}, ""),
    ],
)
def test_a_role_that_no_token_has(name: str, change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    """Also within the spare rows: the new token that gets the id would end texts, or be taken for padding."""
    base = tiny_model(tmp_path / "base", padded_rows=10)
    edit_json(base / name, lambda content: content.update(change))
    if problem:
        with pytest.raises(DataError, match=problem):
            initialise(base, tmp_path)
        return
    initialise(base, tmp_path)
    after = json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
    assert {key: after[key] for key in change} == change


def test_what_was_forbidden_when_it_was_no_token_is_allowed(tmp_path: Path) -> None:
    """The base forbids ids behind its tokens, as padding: those that new tokens get must be free."""
    base = tiny_model(tmp_path / "base", padded_rows=3)
    lists = {"suppress_tokens": [7, *range(358, 363)], "begin_suppress_tokens": [362], "bad_words_ids": [[5], [9, 362]]}
    edit_json(base / "generation_config.json", lambda content: content.update(lists))
    initialise(base, tmp_path)
    after = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert {key: after.get(key) for key in lists} == {
        "suppress_tokens": [7], "begin_suppress_tokens": None, "bad_words_ids": [[5]],
    }  # fmt: skip


def test_a_padding_id_below_zero_leaves_no_row_out_of_training(tmp_path: Path) -> None:
    """torch takes -1 for the last row and gives it no gradient; there the last new token is."""
    base = tiny_model(tmp_path / "base", tied=False)
    edit_json(base / "config.json", lambda config: config.update(pad_token_id=-1))
    made = initialise(base, tmp_path)
    letters = "".join(left + right for left, right in MERGES[-1:])
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{letters} {number} {letters}" for number in range(80)), encoding="utf-8")
    data = langadapt.mix(
        out=tmp_path / "data", model=made.path, corpora={"hu": text}, block_tokens=16, document_separator="<s>"
    )
    trained = langadapt.cpt(
        out=tmp_path / "trained", model=made.path, data=data, steps=2, batch_tokens=64, learning_rate=1e-2,
        strategy="embeddings", compute="fp32",
    )  # fmt: skip
    before, after = (open_weights(folder).read(TABLE) for folder in (made.path, trained.path))
    assert (before[362] != after[362]).any()


# Ids that no token has


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """A model whose last token stands four ids behind the others, in front of spare rows."""
    base = tiny_model(tmp_path / "holed", padded_rows=10)

    def move(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 4

    edit_json(base / "tokenizer.json", move)
    return base


def test_what_a_model_writes_has_a_token(holed: Path) -> None:
    """Told from the ids and not from how many there are: of a hole it wrote `None`, and never the last token."""
    tokenizer, model = load_tokenizer(holed), load_model(holed)
    ids = set(tokenizer.get_vocab().values())
    highest = {"first": 357, "last": 361}
    for pick in highest.values():
        seen: list[torch.Tensor] = []

        def look(logits: torch.Tensor, seen: list[torch.Tensor] = seen, pick: int = pick) -> int:
            seen.append(logits)
            return pick

        next(write(model, tokenizer, [1, 20], pick=look))
        free = set(torch.nonzero(seen[0].isfinite()).flatten().tolist())
        assert free == ids - set(tokenizer.all_special_ids) and (pick in free) == (pick == 361)
    model.get_output_embeddings().weight.data[357:361] *= 100
    assert "None" not in continue_text(model, tokenizer, "the old", prefix_id=1)


def test_a_separator_behind_a_hole(holed: Path) -> None:
    tokenizer = load_tokenizer(holed)
    name = tokenizer.convert_ids_to_tokens(361)
    assert given_separator(str(name), tokenizer, {}, 368) == given_separator("361", tokenizer, {}, 368) == 361
    for given in ("358", "362", "367", "nothing"):
        with pytest.raises(ConfigError, match="no token"):
            given_separator(given, tokenizer, {}, 368)


def test_a_model_without_attention_goes_on_with_a_text(tmp_path: Path) -> None:
    """Mamba keeps no keys and values: what it wrote is read again for each token."""
    base = tiny_model(tmp_path / "base", arch="mamba")
    tokenizer, model = load_tokenizer(base), load_model(base)
    found = []
    for token in write(model, tokenizer, [1, 20, 30]):
        found.append(token)
        if len(found) == 5:
            break
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 20, 30, *found]])).logits[0, 2:-1].clone()
    logits[:, sorted(tokenizer.all_special_ids)] = -torch.inf
    assert logits.argmax(-1).tolist() == found


@pytest.mark.parametrize("keys", [("num_layers", "hidden_size"), ("n_layers", "d_model"), ("n_layer", "n_embd")])
def test_the_sizes_of_a_model_by_other_names(keys: tuple[str, str], tiny: Path, tmp_path: Path) -> None:
    """GPT-Neo, MPT, GPT-2: without them nothing can be priced."""
    (tmp_path / "model.safetensors").symlink_to(tiny / "model.safetensors")
    content = {"vocab_size": 358, keys[0]: 2, keys[1]: 32, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    facts = model_facts(tmp_path)
    assert (facts["layers"], facts["hidden_size"]) == (2, 32)
    data = {"sources": {}, "block_tokens": 32}
    assert can_be_priced(facts, data) and not can_be_priced(facts | {"layers": None}, data)
