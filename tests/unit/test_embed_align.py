"""align against a loop over all pairs of tokens in float64."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from langadapt.core.types import NewToken
from langadapt.embed import overlaps
from langadapt.embed.align import Options, align
from langadapt.embed.inputs import InitInputs
from langadapt.embed.overlaps import _Cutter
from langadapt.embed.subtoken_mean import Options as MeanOptions
from langadapt.embed.subtoken_mean import subtoken_mean
from langadapt.model.token_table import TokenTable
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.families import family_tokenizer
from tests.fixtures.given import World, some_table, world

# beside them a token of spaces alone, which keeps its spaces
EXTRA = (*MERGES, ("Ġ", "Ġ"))


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The new merges come first, so that new tokens lie across old ones (`es`, `th`, `en`)."""
    folder = tmp_path_factory.mktemp("world")
    file = extended_tokenizer(tiny, folder / "tokenizer", EXTRA) / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    content["model"]["merges"] = merges[-len(EXTRA) :] + merges[: -len(EXTRA)]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return world(tiny, folder / "world", file.parent)


def on_text(inputs: InitInputs, texts: Sequence[str]) -> InitInputs:
    return replace(inputs, given=replace(inputs.given, corpus=lambda: iter(texts)))


def spans(tokenizer: Tokenizer, tokens: Any, text: str) -> list[tuple[int, int, int]]:
    """(id, first byte, byte behind the last) of a tokenizer that spells the text."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    ends = np.cumsum([0, *(len(tokens.bytes_of(id)) for id in ids)]).tolist()
    return [(id, start, end) for id, (start, end) in zip(ids, pairwise(ends), strict=True)]


def oracle(inputs: InitInputs, table: np.ndarray, share: str, skip_bare_space: bool) -> dict[int, np.ndarray]:
    rows: dict[int, list[np.ndarray]] = {}
    for text in inputs.corpus():
        old = spans(inputs.base_tokenizer(), inputs.base, text)
        for id, start, end in spans(inputs.target_tokenizer(), inputs.target, text):
            if id not in {token.id for token in inputs.new_tokens}:
                continue
            under = []
            for other, first, last in old:
                both = min(end, last) - max(start, first)
                inside = both in (end - start, last - first)
                if both > 0 and other in inputs.population and (inside or share != "inside"):
                    under.append((other, both))
            if skip_bare_space:
                under = [pair for pair in under if inputs.base.bytes_of(pair[0]) != b" "] or under
            if under:
                weights = np.array([both if share == "bytes" else 1 for _, both in under], dtype=np.float64)
                olds = table[[other for other, _ in under]].astype(np.float64)
                rows.setdefault(id, []).append(weights / weights.sum() @ olds)
    return {id: np.mean(found, axis=0) for id, found in rows.items()}


def check(inputs: InitInputs, table: np.ndarray, share: Any, skip_bare_space: bool) -> int:
    rows = align(inputs, Options(share=share, skip_bare_space=skip_bare_space))
    expected = oracle(inputs, table, share, skip_bare_space)
    for row, note in zip(rows.apply(table), rows.provenance, strict=True):
        if note["id"] in expected:
            np.testing.assert_allclose(row, expected[note["id"]], rtol=1e-5, atol=1e-6)
            assert note["why"] == "old tokens under it"
        else:
            assert note["why"] == "not in the text: mean of its pieces"
    return len(expected)


TEXTS = ["szesz, szeszes szeszesek", "Ősz az  ősz", "themeszt thesz sz", "", "sz", "the szthe   szesz ú</s>szú\nsze"]


@pytest.mark.parametrize("skip_bare_space", [True, False])
@pytest.mark.parametrize("share", ["inside", "tokens", "bytes"])
def test_rows_equal_the_loop(share: str, skip_bare_space: bool, place: World) -> None:
    table = some_table(place.base.size)
    inputs = on_text(place.inputs(table), TEXTS + place.texts[:5])
    assert check(inputs, table, share, skip_bare_space) == len(inputs.new_tokens)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_texts_may_be_looked_at_in_any_portions(size: int, place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are cut before spaces, where both tokenizers cut too."""
    table = some_table(place.base.size)
    inputs = on_text(place.inputs(table), ["a szesz és a szeszes ital " * 40, *place.texts[:9]])
    before = align(inputs, Options())
    for name, value in (("_PART_BYTES", 100), ("_PARTS_AT_A_TIME", size), ("_BLOCKS_AT_A_TIME", 2)):
        monkeypatch.setattr(overlaps, name, value)
    after = align(inputs, Options())
    assert before.measured == after.measured and before.measured["occurrences"] > 100
    np.testing.assert_allclose(after.apply(table), before.apply(table), rtol=1e-5)


def test_a_token_that_is_always_cut_alike_has_the_mean_of_its_pieces(place: World) -> None:
    """Alone between spaces, nothing joins it: fast vocabulary transfer."""
    table = some_table(place.base.size)
    inputs = on_text(place.inputs(table), ["sze\nsze\nsze"])
    rows, other = align(inputs, Options()), subtoken_mean(inputs, MeanOptions())
    line = [note["piece"] for note in rows.provenance].index("sze")
    np.testing.assert_allclose(rows.apply(table)[line], other.apply(table)[line], rtol=1e-5)
    assert rows.reasons()["not in the text: mean of its pieces"] == len(inputs.new_tokens) - 1


def test_only_so_much_text_is_looked_at(place: World) -> None:
    inputs = on_text(place.inputs(some_table(place.base.size)), ["sze sze", "sze\nsze sze"])
    assert align(inputs, Options(max_corpus_bytes=5)).measured["occurrences"] == 2
    assert align(inputs, Options(max_corpus_bytes=8)).measured["occurrences"] == 5


def test_special_tokens_in_the_text_have_no_share(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`</s>` is a string of the text that both tokenizers take for a token."""
    table = some_table(place.base.size)
    inputs = on_text(place.inputs(table), ["sze</s>sze<s>"])
    rows = align(inputs, Options(share="tokens"))
    assert set(rows.indices.tolist()) <= set(inputs.population.tolist())
    assert rows.measured["occurrences"] == 2


@pytest.mark.parametrize(
    ("family", "text", "ends"),
    [
        # what a normaliser changes (the long s) is placed by offsets; `▁` before the first word has no bytes
        ("unigram", "ſa", [2, 3]),
        ("llama", "Das", [3]),
        # a space belongs to the word behind it
        ("wordpiece", "das  haus", [3, 9]),
    ],
)
def test_ends_of_tokenizers_that_change_the_text(family: str, text: str, ends: list[int], tmp_path: Path) -> None:
    folder = family_tokenizer(tmp_path / family, family)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    cut = _Cutter(tokenizer, TokenTable.from_folder(folder)).cut([text.encode()])[0]
    assert set(ends) <= set(cut.ends.tolist())
    assert cut.ends[-1] == len(text.encode()) and (np.diff(cut.ends) >= 0).all()


@pytest.mark.parametrize("family", ["gemma", "llama", "unigram", "wordpiece"])
def test_old_tokens_of_any_family_have_letters_in_common_with_what_they_lie_under(
    family: str, place: World, tmp_path: Path
) -> None:
    folder = family_tokenizer(tmp_path / family, family)
    base = TokenTable.from_folder(folder)
    opened = Tokenizer.from_file(str(folder / "tokenizer.json"))
    opened.no_truncation()
    texts = ["The  old houses of the town, and the ﬁne roads.", "There was snow on the road\nand the light"]
    inputs = on_text(place.inputs(some_table(place.base.size)), texts)
    words = {id: place.target.bytes_of(id) for id in place.target.text_ids().tolist()}
    tokens = [
        NewToken(id, place.target.piece(id), content, 1, "text") for id, content in words.items() if content.isascii()
    ]
    tokens = [token for token in tokens if token.content.strip().isalpha()]
    given = replace(inputs.given, base_tokenizer=lambda: opened)
    inputs = replace(inputs, base=base, population=base.text_ids(), old_rows=base.size, kept={}, given=given)
    rows = align(replace(inputs, new_tokens=tokens), Options(share="tokens"))
    assert rows.reasons()["old tokens under it"] >= 15
    for note in rows.provenance:
        if note["why"] == "old tokens under it":
            letters = set(bytes.fromhex(note["hex"]).decode().strip().lower())
            assert note["pieces"] and all(letters & set(piece.lower()) for piece in note["pieces"]), note
