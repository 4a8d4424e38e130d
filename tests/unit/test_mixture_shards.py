"""Token shards, the ring of blocks, and passages."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import DataError
from langadapt.core.io import pretty_json
from langadapt.core.types import Document
from langadapt.mixture.passages import passages
from langadapt.mixture.plan import Plan, Source
from langadapt.mixture.shards import Shards, pack, select_documents, shard_name, token_type
from langadapt.mixture.stream import Stream

SEPARATOR = 0


def tokenise(texts: list[str]) -> Iterator[list[int]]:
    """A letter is a token; `a` is 1."""
    for text in texts:
        yield [ord(letter) - 96 for letter in text]


def corpus(*texts: str) -> list[Document]:
    return [Document(f"d{number}", text, "xx") for number, text in enumerate(texts)]


def packed(folder: Path, documents: list[Document], *, seed: int = 0, shard_tokens: int = 1 << 28) -> Shards:
    selection = select_documents(documents, seed)
    done = pack(folder, documents, selection, tokenise, separator=SEPARATOR, vocabulary=40, shard_tokens=shard_tokens)
    return Shards(folder, tokens=done.tokens, documents=done.documents, vocabulary=40, shard_tokens=shard_tokens)


texts_of_letters = st.lists(st.text("abcdefgh", min_size=0, max_size=12), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None)
@given(texts=texts_of_letters.filter(any), shard=st.sampled_from([1, 3, 7, 1 << 28]), seed=st.integers(0, 3))
def test_every_document_is_packed_once_behind_a_separator(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shard: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("ring") / "a"
    shards = packed(folder, corpus(*texts), seed=seed, shard_tokens=shard)
    ring = shards.read(0, shards.tokens).tolist()
    cut = [*shards.starts.tolist(), shards.tokens]
    found = ["".join(chr(token + 96) for token in ring[at + 1 : end]) for at, end in pairwise(cut)]
    assert sorted(found) == sorted(text for text in texts if text)
    assert all(ring[at] == SEPARATOR for at in cut[:-1])
    assert len(list(folder.glob("*.bin"))) == -(-shards.tokens // shard)
    assert not (folder / "spool.tmp").exists()


@settings(max_examples=60, deadline=None)
@given(
    texts=texts_of_letters.filter(any),
    first=st.integers(0, 500),
    count=st.integers(1, 400),
    shard=st.sampled_from([5, 1 << 28]),
)
def test_the_ring_equals_an_endless_list(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], first: int, count: int, shard: int
) -> None:
    shards = packed(tmp_path_factory.mktemp("ring") / "a", corpus(*texts), shard_tokens=shard)
    once = shards.read(0, shards.tokens).tolist()
    endless = once * (2 + (first + count) // len(once))
    assert shards.read(first, count).tolist() == endless[first : first + count]
    begins = set(shards.starts.tolist())
    expected = [offset for offset in range(count) if (first + offset) % len(once) in begins]
    assert shards.starts_within(first, count) == expected


@settings(max_examples=40, deadline=None)
@given(texts=texts_of_letters.filter(any), data=st.data())
def test_shuffled_input_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shuffled")
    packed(folder / "one", corpus(*texts))
    packed(folder / "two", corpus(*data.draw(st.permutations(texts))))
    for name in ("tokens-00000.bin", "documents.idx"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


def test_the_seed_changes_the_order_and_equal_texts_are_spread() -> None:
    documents = corpus(*["same"] * 50, *(f"other {number}" for number in range(50)))
    orders = [select_documents(documents, seed).order.tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(100))
    places = [place for place, number in enumerate(orders[0]) if number < 50]
    # 50 of 100 places at random have 25 ± 3.6 neighbours of their kind; all in one heap would have 49
    assert sum(1 for one, two in pairwise(places) if two == one + 1) < 40


@pytest.mark.parametrize(("cap", "kept"), [(None, 10), (1000, 10), (100, 10), (99, 9), (35, 3), (1, 1)])
def test_the_cap_keeps_a_prefix_of_the_same_order(cap: int | None, kept: int) -> None:
    documents = corpus(*(f"text {number:05d}" for number in range(10)))
    whole = select_documents(documents, 4)
    selection = select_documents(documents, 4, cap)
    assert selection.order.tolist() == whole.order.tolist()[:kept]
    # the first document is kept even when it alone is over the cap: a source cannot be empty
    assert (selection.bytes, selection.documents_left_out) == (10 * kept, 10 - kept)
    assert selection.bytes + selection.bytes_left_out == 100


@pytest.mark.parametrize(("vocabulary", "width"), [(2, 2), (65_536, 2), (65_537, 4)])
def test_width_of_a_stored_token(vocabulary: int, width: int) -> None:
    assert token_type(vocabulary).itemsize == width
    assert token_type(vocabulary).str.startswith("<")


def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    documents = corpus("abz")
    with pytest.raises(DataError, match="id 26, but the model has 20 rows"):
        pack(tmp_path / "a", documents, select_documents(documents, 0), tokenise, separator=0, vocabulary=20)


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    documents = corpus("", "")
    with pytest.raises(DataError, match="no text"):
        pack(tmp_path / "a", documents, select_documents(documents, 0), tokenise, separator=0, vocabulary=20)


def test_a_corpus_that_shrinks_between_the_passes_is_refused(tmp_path: Path) -> None:
    documents = corpus("abc", "def")
    selection = select_documents(documents, 0)
    with pytest.raises(DataError, match="changed"):
        pack(tmp_path / "a", documents[:1], selection, tokenise, separator=0, vocabulary=20)


# stream


@settings(max_examples=40, deadline=None)
@given(texts=texts_of_letters.filter(any), length=st.integers(2, 30), seed=st.integers(0, 5))
def test_an_epoch_reads_the_whole_ring_and_less_than_a_block_twice(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], length: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    shards = packed(folder / "a", corpus(*texts))
    blocks = -(-shards.tokens // length)
    source = Source("a", len(shards.starts), 1, shards.tokens, blocks, 1)
    (folder / "plan.json").write_text(pretty_json(Plan(seed, length, SEPARATOR, 40, (source,)).to_json()))
    stream = Stream.open(folder)
    ring = shards.read(0, shards.tokens).tolist()
    for epoch in range(2):
        uses = [0] * len(ring)
        for position in range(epoch * blocks, (epoch + 1) * blocks):
            block = stream.block(position)
            assert (block.source, block.epoch, len(block.tokens)) == ("a", epoch, length)
            first = stream.plan.offset(0, epoch) + block.index * length
            for offset, token in enumerate(block.tokens):
                at = (first + offset) % len(ring)
                assert token == ring[at]
                assert (offset in block.starts) == (token == SEPARATOR)
                uses[at] += 1
        assert min(uses) >= 1
        assert sum(uses) - len(ring) == blocks * length - shards.tokens < length
        assert Stream.open(folder).block(3) == stream.block(3)


# passages


def test_passages_are_whole_and_spread_and_do_not_depend_on_order() -> None:
    long = " ".join(f"word{number}" for number in range(200))
    documents = corpus("short one", "short two", long)
    found = passages(documents, 600, 200)
    texts = [item.text for item in found]
    assert "short one" in texts and "short two" in texts
    parts = [item for item in found if "#" in item.id]
    assert len(parts) >= 2 and "".join(item.text for item in parts) == long[: sum(len(item.text) for item in parts)]
    assert sum(len(text.encode()) for text in texts) <= 600
    assert passages(documents[::-1], 600, 200) == found
    assert len({item.id for item in found}) == len(found)


def test_one_passage_a_document_while_there_are_documents() -> None:
    documents = corpus(*(f"document {number} " + "with many words " * 40 for number in range(30)))
    found = passages(documents, 2000, 200)
    assert len({item.id.split("#")[0] for item in found}) == len(found) >= 8
    assert all(item.text.startswith("document") for item in found)


def test_no_text_no_passages() -> None:
    assert passages(corpus("", "  "), 100, 10) == []


def test_shard_names_sort_by_number() -> None:
    assert [shard_name(number) for number in (0, 12)] == ["tokens-00000.bin", "tokens-00012.bin"]


def test_stored_bytes_are_what_the_page_says(tmp_path: Path) -> None:
    packed(tmp_path / "a", corpus("abc"))
    assert (tmp_path / "a" / "tokens-00000.bin").read_bytes() == bytes([0, 0, 1, 0, 2, 0, 3, 0])
    assert (tmp_path / "a" / "documents.idx").read_bytes() == np.array([0], dtype="<u8").tobytes()
