"""Which text is scored: size, spread, determinism, and honesty about small sets."""

from itertools import pairwise

import pytest

from langadapt.core.errors import DataError
from langadapt.core.types import Document
from langadapt.evaluate.price import window_bytes
from langadapt.evaluate.segments import ScoringSet, choose_segments
from tests.fixtures.tiny import tiny_text


def documents(count: int, words: int = 1) -> list[Document]:
    return [Document(f"d{at}", " ".join([text] * words), "hu") for at, text in enumerate(tiny_text("hu", count))]


def choose(found: list[Document], *, set_bytes: int = 30_000, segment_bytes: int = 600, seed: int = 0) -> ScoringSet:
    return choose_segments(found, set_bytes=set_bytes, segment_bytes=segment_bytes, seed=seed, name="hu")


def test_enough_text_gives_about_the_bytes_in_at_least_fifty_segments_of_as_many_documents() -> None:
    chosen = choose(documents(120, words=3))
    assert len(chosen.segments) >= 50
    assert 30_000 <= chosen.bytes < 30_000 + 700 or len(chosen.segments) == 50
    assert chosen.documents == len(chosen.segments)  # one each as long as there are documents


def test_a_second_round_starts_only_when_every_document_was_used() -> None:
    chosen = choose(documents(20, words=8))
    assert chosen.documents == 20 and len(chosen.segments) >= 50
    counts = [sum(part.document == f"d{at}" for part in chosen.segments) for at in range(20)]
    assert max(counts) - min(counts) <= 1 or min(counts) >= 2


def test_segments_tile_their_documents_at_spaces() -> None:
    chosen = choose(documents(3, words=4))
    for document in {part.document for part in chosen.segments}:
        content = chosen.texts[document].encode()
        parts = [part for part in chosen.segments if part.document == document]
        assert (parts[0].start, parts[-1].end) == (0, len(content))
        for before, after in pairwise(parts):
            assert before.end == after.start and content[after.start : after.start + 1] == b" "


def test_small_text_is_used_whole() -> None:
    found = documents(2)
    chosen = choose(found)
    assert chosen.bytes == chosen.available_bytes == sum(len(document.text.encode()) for document in found)


def test_the_choice_depends_on_seed_and_ids_not_on_order() -> None:
    found = documents(200)
    assert choose(found) == choose(found[::-1])
    assert choose(found).segments != choose(found, seed=1).segments


def test_one_more_document_moves_few_of_the_others() -> None:
    found = documents(200)
    before = set(choose(found, set_bytes=5000, segment_bytes=300).segments)
    more = [*found, Document("new", found[0].text, "hu")]
    after = set(choose(more, set_bytes=5000, segment_bytes=300).segments)
    assert len(before - after) <= 2


def test_scored_texts_cover_exactly_the_segments_in_order() -> None:
    chosen = choose(documents(30, words=5), set_bytes=8000)
    flat = []
    for text in chosen.scored_texts(100):
        starts = (text.start, *text.segment_ends[:-1])
        flat += [(text.id, first, last) for first, last in zip(starts, text.segment_ends, strict=True)]
    assert flat == [(part.document, part.start, part.end) for part in chosen.segments]


def test_price_counts_context_once_for_shared_windows() -> None:
    chosen = choose(documents(4))
    whole = sum(len(text.encode()) for text in chosen.texts.values())
    assert window_bytes(chosen, 100_000) == whole
    assert whole < window_bytes(choose(documents(4), segment_bytes=100), 100)


@pytest.mark.parametrize("found", [[], [Document("d", "  \n ", "hu")]])
def test_no_text_is_an_error(found: list[Document]) -> None:
    with pytest.raises(DataError, match="no held-out text"):
        choose(found)
