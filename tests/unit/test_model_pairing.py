"""Which token is which in another tokenizer: by bytes and by part played, against dictionaries built the slow way."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langadapt.core.errors import DataError
from langadapt.core.types import TokenMatch
from langadapt.embed.assemble import layout
from langadapt.embed.ids import remapped
from langadapt.model.matching import match
from langadapt.model.roles import check_role_ids, role_ids, roles_of
from langadapt.model.row_origin import new_rows_of, write_origin
from langadapt.model.token_table import TokenTable
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.tiny import tiny_tokenizer


def table(folder: Path) -> TokenTable:
    return TokenTable.from_folder(folder)


def edited(base: Path, folder: Path, change: Any, **settings: Any) -> Path:
    """A copy of a tokenizer with its tokenizer.json changed, and other roles in its settings."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    return folder


def permuted(content: dict[str, Any]) -> None:
    """All ids mirrored, special ones too."""
    vocabulary = content["model"]["vocab"]
    top = max(vocabulary.values())
    content["model"]["vocab"] = {piece: top - id for piece, id in vocabulary.items()}
    for entry in content["added_tokens"]:
        entry["id"] = top - entry["id"]


def by_dictionary(base: TokenTable, new: TokenTable) -> dict[int, int]:
    """Text tokens with the same bytes: the lowest id of either side, one to one."""
    first: dict[bytes, int] = {}
    for id in reversed(base.text_ids().tolist()):
        first[base.bytes_of(id)] = id
    found: dict[int, int] = {}
    for id in new.text_ids().tolist():
        old = first.get(new.bytes_of(id))
        if old is not None and old not in found:
            found[old] = id
    return found


def test_a_permutation_is_found_again(tiny: Path, tmp_path: Path) -> None:
    base, new = table(tiny), table(edited(tiny, tmp_path / "t", permuted))
    found = match(base, new, base_rows=base.size)
    assert found.kept == {id: base.size - 1 - id for id in range(base.size)}
    assert found.renumbered and not found.new_tokens and not found.dropped and found.new_rows == base.size
    assert found.tiers == {"bytes": base.size - 4, "string": 4}


def test_a_smaller_tokenizer_of_the_same_family_equals_the_slow_oracle(tiny: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer(tmp_path / "t", size=300)
    base, new = table(tiny), table(other)
    found = match(base, new, base_rows=base.size)
    text = {old: id for old, id in found.kept.items() if base.kind_of(old) == "text"}
    assert text == by_dictionary(base, new)
    assert set(found.dropped) == {id for id in range(base.size) if id not in found.kept}
    assert {token.id for token in found.new_tokens} == set(range(new.size)) - set(found.kept.values())
    assert found.new_rows == new.size


@pytest.mark.parametrize("style", ["gemma", "llama"])
def test_another_family_is_matched_by_bytes_and_by_role(style: str, tiny: Path, tmp_path: Path) -> None:
    base, new = table(tiny), table(fallback_tokenizer(tmp_path / "t", style=style))
    found = match(base, new, base_rows=base.size)
    for old, id in found.kept.items():
        if base.kind_of(old) == "text":
            assert base.bytes_of(old) == new.bytes_of(id)
    # "Ġthe" is "▁the", and "é" is never a byte token
    pieces = {piece: id for id, piece in enumerate(base.pieces)}
    assert new.pieces[found.kept[pieces["Ġthe"]]] == "▁the"
    assert new.pieces[found.kept[pieces["a"]]] == "a", "text goes before the byte token of the same byte"
    assert new.pieces[found.kept[pieces["Ã"]]] == "<0xC3>"
    roles = {"<s>": "<bos>", "</s>": "<eos>", "<|endoftext|>": "<unk>"}
    assert {old: new.pieces[found.kept[pieces[old]]] for old in roles} == roles
    assert new.pieces[found.kept[pieces["<pad>"]]] == "<pad>"
    assert found.tiers["role"] == 3 and found.tiers["string"] == 1 and found.tiers["byte"] > 100
    assert len(found.kept) == sum(found.tiers.values()) == len(set(found.kept.values()))


def test_a_string_that_is_there_goes_before_a_role(tiny: Path, tmp_path: Path) -> None:
    """A chat model ends turns with another token than its base ends texts with; both have both."""
    other = edited(tiny, tmp_path / "t", permuted, eos_token="<|endoftext|>", unk_token=None)
    base, new = table(tiny), table(other)
    kept = match(base, new, base_rows=base.size).kept
    assert all(base.pieces[old] == new.pieces[id] for old, id in kept.items()) and len(kept) == base.size
    # where one string plays different parts, the part decides
    crossed = table(edited(tiny, tmp_path / "c", permuted, bos_token="</s>", eos_token="<s>"))
    kept = match(base, crossed, base_rows=base.size).kept
    parts = role_ids(base), role_ids(crossed)
    assert all(kept[parts[0][role]] == parts[1][role] for role in ("bos", "eos", "pad", "unk"))
    assert crossed.pieces[kept[parts[0]["eos"]]] == "<s>"


def test_roles_come_from_settings_and_from_the_config(tiny: Path, tmp_path: Path) -> None:
    assert roles_of(tiny) == {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<|endoftext|>"}
    bare = edited(tiny, tmp_path / "t", lambda content: None, eos_token=None, bos_token={"content": "<s>"})
    assert roles_of(bare) == {"bos": "<s>", "pad": "<pad>", "unk": "<|endoftext|>"}
    (bare / "config.json").write_text('{"eos_token_id": 0}', encoding="utf-8")
    assert role_ids(table(bare)) == {"eos": 0, "bos": 1, "unk": 0, "pad": 3}


ORDINARY = 40


@pytest.mark.parametrize(
    ("config", "settings", "told"),
    [
        (
            {"bos_token_id": ORDINARY},
            {},
            rf"bos_token_id. is wrong: token {ORDINARY} is `.*`, an ordinary .*`<s>`.* to 1",
        ),
        ({"bos_token_id": ORDINARY}, {"bos_token": None}, r"an ordinary piece of text .*set it to null"),
        ({"eos_token_id": [2, ORDINARY]}, {}, r"eos_token_id. is wrong"),
        ({"pad_token_id": 9999}, {}, r"there is no token 9,999, only 358"),
        ({"pad_token_id": -2, "vocab_size": 360}, {}, r"there is no token -2, only 360"),
        ({"text_config": {"bos_token_id": ORDINARY, "vocab_size": 358}}, {}, r"an ordinary piece"),
    ],
)
def test_wrong_role_ids_are_refused_before_tokens_are_paired(
    tiny: Path, tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], told: str
) -> None:
    wrong = edited(tiny, tmp_path / "t", lambda content: None, **settings)
    (wrong / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for ask in (
        lambda: check_role_ids(table(wrong)),
        lambda: match(table(wrong), table(edited(tiny, tmp_path / "m", permuted)), base_rows=358),
    ):
        with pytest.raises(DataError) as caught:
            ask()
        assert re.search(told, f"{caught.value} {caught.value.hint}", re.DOTALL)
        assert "config.json:" in str(caught.value.where)


def test_role_ids_that_may_be_meant(tiny: Path, tmp_path: Path) -> None:
    found = edited(tiny, tmp_path / "t", lambda content: None, bos_token=None)
    # none in old files; a row that no text reaches; two ends of a text; no name in the settings
    config = {"pad_token_id": -1, "unk_token_id": 359, "eos_token_id": [2, 0], "bos_token_id": 1, "vocab_size": 360}
    (found / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert check_role_ids(table(found)) == []
    (found / "config.json").write_text(json.dumps({"eos_token_id": 1}), encoding="utf-8")
    [told] = check_role_ids(table(found))
    assert told == "config.json has 1 `<s>` as eos, the tokenizer has `</s>`, which is taken"


def test_an_extension_is_as_it_was(tiny: Path, tmp_path: Path) -> None:
    base, new = table(tiny), table(extended_tokenizer(tiny, tmp_path / "t"))
    found = match(base, new, base_rows=base.size + 3)
    assert found.kept == {id: id for id in range(base.size)} and not found.renumbered and found.tiers == {"id": 358}
    assert found.new_rows == 363
    plan = layout(found, None)
    assert plan.reused == (358, 359, 360) and plan.rows == 363 and not plan.plain
    assert plan.origin().tolist() == [*range(358), -1, -1, -1, -1, -1]
    assert layout(match(base, new, base_rows=base.size), None).plain


@pytest.mark.parametrize(
    ("base_rows", "rows"),
    [(358, 300), (384, 384), (368, 304), (512, 512), (1024, 512)],
)
def test_the_table_of_a_new_tokenizer_is_padded_as_the_base_was(
    base_rows: int, rows: int, tiny: Path, tmp_path: Path
) -> None:
    base, new = table(tiny), table(tiny_tokenizer(tmp_path / "t", size=300))
    plan = layout(match(base, new, base_rows=base_rows), None)
    assert plan.rows == rows and plan.padding == tuple(range(new.size, rows))
    assert set(plan.kept_new.tolist()) | set(plan.new_ids) | set(plan.padding) == set(range(rows))


def test_a_map_that_disagrees_with_the_files_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = edited(tiny, tmp_path / "t", permuted)
    base = table(tiny)
    header = {"mode": "trim", "vocabulary_before": base.size}
    for old, problem in ((357, None), (300, "says that 0 was 300")):
        lines = [header, {"id": 0, "old_id": old}]
        (folder / "vocab_map.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        if problem is None:
            match(base, table(folder), base_rows=base.size)
        else:
            with pytest.raises(DataError, match=problem):
                match(base, table(folder), base_rows=base.size)
    (folder / "vocab_map.jsonl").write_text('{"vocabulary_before": 358}\n', encoding="utf-8")
    with pytest.raises(DataError, match="does not extend the vocabulary"):
        match(base, table(folder), base_rows=base.size)


def test_ids_in_settings_follow_the_tokens() -> None:
    kept = {1: 11, 2: 12, 9: 19}
    content = {
        "bos_token_id": 1,
        "eos_token_id": [2, 7],
        "pad_token_id": 7,
        "decoder_start_token_id": None,
        "suppress_tokens": [9, 7],
        "bad_words_ids": [[1, 2], [1, 7]],
        "max_length": 7,
    }
    assert remapped(content, kept, {"eos": 12}, "x") == {
        "bos_token_id": 11,
        "eos_token_id": [12],
        "pad_token_id": None,
        "suppress_tokens": [19],
        "bad_words_ids": [[11, 12]],
    }
    assert remapped({"eos_token_id": 7}, kept, {"eos": 12}, "x") == {"eos_token_id": 12}
    with pytest.raises(DataError, match="image_token_index"):
        remapped({"image_token_index": 7}, kept, {}, "x")


def test_row_origin_is_read_back_and_checked(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "m"))
    assert new_rows_of(folder) is None
    origin = np.arange(358, dtype=np.int32)
    origin[[7, 9]] = -1, -2
    write_origin(folder, origin)
    found = new_rows_of(folder)
    assert found is not None and found.tolist() == [7, 9]
    write_origin(folder, origin[:-1])
    with pytest.raises(DataError, match="for 357 rows"):
        new_rows_of(folder)


def test_dropped_tokens_whose_ids_others_take_keep_the_shape() -> None:
    """A vocabulary of the same size: id 2 is another token now, and the spare rows stay."""
    from langadapt.core.types import NewToken

    plan = layout(TokenMatch(6, 6, {0: 0, 1: 1, 3: 3}, (NewToken(2, "x", b"x", 1, "test"),), (2,)), None)
    assert plan.rows == 6 and plan.reused == (2,) and plan.origin().tolist() == [0, 1, -1, 3, 4, 5]
