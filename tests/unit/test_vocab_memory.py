"""A large vocabulary is in memory once where once is enough: what is shared, what is let go, and what is remembered."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

import langadapt
from langadapt.model import load
from langadapt.vocab import moved_checks, tokenizer_file
from langadapt.vocab.loaded import Seen, chat_kept, roles_kept
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from tests.fixtures.tiny import tiny_model
from tests.unit.test_vocab_step import ENGLISH, LINES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("memory") / "model")


@pytest.mark.parametrize("spelled", ["pairs", "strings"])
def test_merges_hold_the_strings_of_the_vocabulary(folder: Path, tmp_path: Path, spelled: str) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    wanted = [tuple(merge) for merge in spec["model"]["merges"]]
    if spelled == "strings":
        spec["model"]["merges"] = [" ".join(merge) for merge in wanted]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    file = tokenizer_file.read(tmp_path)
    own = {piece: piece for piece in file.vocab}
    assert file.merges == wanted and file.merges is file.model["merges"]
    assert all(own[part] is part for merge in file.merges for part in merge)
    gone = next(left + right for left, right in reversed(wanted))
    fewer = file.without([gone])
    assert fewer.merges == [merge for merge in wanted if "".join(merge) != gone]
    assert fewer.merges is fewer.model["merges"] and fewer.merges[0] is file.merges[0]


def test_one_table_of_pieces_unless_added_tokens_are_not_in_it(folder: Path) -> None:
    file = tokenizer_file.read(folder)
    assert file.pieces is file.vocab is file.model["vocab"]
    last = file.next_id
    token = {"id": last, "content": "<behind>", "special": True}
    apart = TokenizerFile(file.spec | {"added_tokens": [*file.spec["added_tokens"], token]}, "test")
    assert apart.pieces == file.vocab | {"<behind>": last} and "<behind>" not in file.vocab
    piece = next(iter(file.vocab))
    moved = TokenizerFile(file.spec | {"added_tokens": [token | {"content": piece}]}, "test")
    assert moved.pieces == file.vocab | {piece: last}


def test_what_was_let_go_comes_again(folder: Path) -> None:
    file = tokenizer_file.read(folder)
    first = file.tokenizer, file.model_stage()
    cut = [list(encode_all(one, LINES)) for one in first]
    file.let_go()
    again = file.tokenizer, file.model_stage()
    assert all(one is not other for one, other in zip(first, again, strict=True))
    assert [list(encode_all(one, LINES)) for one in again] == cut


def test_the_base_has_left_memory_when_transformers_loads_the_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"min_lang_probability": 0.0, "documents": "line", "near_duplicates": "off"}
    for lang, lines in (("hu", LINES), ("en", ENGLISH)):
        text = "".join(f"{lines[n % 3]} {lines[n * 7 % 3]} {n}\n" for n in range(200))
        (tmp_path / f"{lang}.txt").write_text(text, encoding="utf-8")
        langadapt.prepare(out=tmp_path / lang, text=[tmp_path / f"{lang}.txt"], lang=lang, **plain)
    seen, alive = [], []
    plain_load = load.load_tokenizer

    def loading(place: Path, **more):
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(tokenizer := plain_load(place, **more)))
        return tokenizer

    monkeypatch.setattr(load, "load_tokenizer", loading)
    langadapt.extend_vocab(
        out=tmp_path / "out", model=folder, corpus=tmp_path / "hu", guard=[tmp_path / "en"], size=20, mode="append"
    )
    assert alive == [0, 0]


def test_what_is_remembered_tells_every_change(folder: Path) -> None:
    """Each of the things that a loaded tokenizer is compared by, changed alone."""
    seen = Seen.of(load.load_tokenizer(folder))
    text, ids = seen.chats[0]
    same = {number: number for _, chat in seen.chats for number in chat}
    same |= {number: number for _, number in seen.specials}
    role = next(role for role, (token, _) in seen.roles.items() if token is not None)
    token, number = seen.roles[role]
    assert not roles_kept(seen, seen).broken and not chat_kept(seen, seen).broken
    assert not moved_checks.chat_follows(seen, seen, same).broken
    assert not moved_checks.chat_specials_follow(seen, seen, same).broken
    for other in (
        replace(seen, roles={**seen.roles, role: (token, (number or 0) + 1)}),
        replace(seen, specials=(*seen.specials, ("<new>", 9999))),
        replace(seen, specials=seen.specials[1:]),
    ):
        assert roles_kept(seen, other).broken
    assert not roles_kept(seen, replace(seen, specials=seen.specials[1:]), [seen.specials[0][0]]).broken
    for other in (
        replace(seen, template=f"{seen.template} "),
        replace(seen, chats=((text + " ", ids), *seen.chats[1:])),
        replace(seen, chats=((text, (*ids, ids[0])), *seen.chats[1:])),
        replace(seen, chats=seen.chats[:-1]),
    ):
        assert chat_kept(seen, other).broken and moved_checks.chat_follows(seen, other, same).broken
        assert moved_checks.chat_specials_follow(seen, other, same).broken
