"""Snippets of new tokens: what is taken, where both tokenizers end, and how the old one is made again."""

import json
from pathlib import Path

import pytest

import langadapt
from langadapt.core.errors import DataError
from langadapt.embed.snippets import Cut, find_snippets
from langadapt.model.load import load_tokenizer
from langadapt.model.old_tokenizer import without_tokens
from langadapt.model.spans import spans
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.families import family_tokenizer
from tests.fixtures.tiny import tiny_corpus, tiny_text


def cut_at(*marks: str):  # type: ignore[no-untyped-def]
    """Letters one by one, and each of `marks` as one token: ids are code points, for marks from 1000 on."""

    def cut(text: str) -> Cut:
        ids, ends, at = [], [], 0
        while at < len(text):
            mark = next((mark for mark in marks if text.startswith(mark, at)), text[at])
            ids.append(1000 + marks.index(mark) if mark in marks else ord(mark))
            at += len(mark)
            ends.append(at)
        return tuple(ids), tuple(ends)

    return cut


def test_places_are_where_the_same_byte_ends_from_the_first_new_token_on() -> None:
    found = find_snippets(["xabcyab"], cut_at("abc", "ab"), cut_at("bc"), {1000, 1001}, each=9, tokens=50)
    assert len(found) == 1
    snippet = found[0]
    assert snippet.new.tolist() == [ord("x"), 1000, ord("y"), 1001]
    assert snippet.old.tolist() == [ord("x"), ord("a"), 1000, ord("y"), ord("a"), ord("b")]
    assert snippet.new_at.tolist() == [1, 2, 3] and snippet.old_at.tolist() == [2, 3, 5]
    assert found.counts == {1000: 1, 1001: 1}


def test_a_stretch_begins_and_ends_where_both_tokenizers_do() -> None:
    # the old token `ba` lies across two new ones: no place there, and no cut
    found = find_snippets(["ab" * 6], cut_at("ab"), cut_at("ba"), {1000}, each=99, tokens=2)
    assert [snippet.new.tolist() for snippet in (found[at] for at in range(len(found)))] == [[1000] * 6]
    assert found[0].new_at.tolist() == [5] and found[0].old_at.tolist() == [6]
    assert found[0].old.tolist() == [ord("a"), *[1000] * 5, ord("b")]


@pytest.mark.parametrize("tokens", [3, 7, 50])
def test_stretches_against_the_texts_they_were_cut_from(tokens: int) -> None:
    texts = tiny_text("hu", 12)
    new, old = cut_at("sza", "gy", "cs"), cut_at("gy", "za")
    found = find_snippets(texts, new, old, {1000, 1002}, each=10_000, tokens=tokens)
    names = {1000: "sza", 1001: "gy", 1002: "cs"}, {1000: "gy", 1001: "za"}
    whole = "\n".join(texts)
    wanted = sum(list(new(text)[0]).count(id) for text in texts for id in (1000, 1002))
    assert wanted == sum(int((found[at].new == 1000).sum() + (found[at].new == 1002).sum()) for at in range(len(found)))
    for at in range(len(found)):
        snippet = found[at]
        both = [[table.get(id, "") or chr(id) for id in ids.tolist()] for table, ids in
                zip(names, (snippet.new, snippet.old), strict=True)]  # fmt: skip
        assert "".join(both[0]) == "".join(both[1]) and "".join(both[0]) in whole
        for one, other in zip(snippet.new_at, snippet.old_at, strict=True):
            assert "".join(both[0][: one + 1]) == "".join(both[1][: other + 1])
        first = next(place for place, id in enumerate(snippet.new) if id in (1000, 1002))
        ends = {len("".join(both[1][: place + 1])) for place in range(len(both[1]))}
        places = [place for place in range(first, len(both[0])) if len("".join(both[0][: place + 1])) in ends]
        assert snippet.new_at.tolist() == places
    assert found.longest()[0] <= tokens + 3


def test_no_more_is_kept_than_the_tokens_can_use_and_reading_ends_when_all_have_enough() -> None:
    read: list[int] = []

    def texts():  # type: ignore[no-untyped-def]
        for number in range(100):
            read.append(number)
            yield "ab ab" if number % 10 else "ab cd"

    found = find_snippets(texts(), cut_at("ab", "cd"), cut_at(), {1000, 1001}, each=3, tokens=50)
    assert found.counts == {1000: 5, 1001: 3} and len(found) == 5  # `cd` came with an `ab` each time
    assert len(read) == 22
    assert len(find_snippets(texts(), cut_at("ab"), cut_at(), {1000, 1001}, each=30, tokens=50, most=7)) == 7


def test_a_token_that_stands_nowhere_is_counted_and_none_at_all_is_an_error() -> None:
    found = find_snippets(["ab"], cut_at("ab", "cd"), cut_at(), {1000, 1001}, each=3, tokens=50)
    assert found.counts == {1000: 1, 1001: 0}
    with pytest.raises(DataError, match="none of the 1 new tokens stands in the text"):
        find_snippets(["ab", ""], cut_at("ab", "cd"), cut_at(), {1001}, each=3, tokens=50)


@pytest.mark.parametrize("family", ["byte-bpe", "gemma", "llama", "unigram"])
def test_the_old_tokenizer_is_the_base_s_to_the_id(tmp_path: Path, family: str) -> None:
    base = family_tokenizer(tmp_path / "base", family)
    (base / "config.json").write_text('{"model_type": "llama"}')
    corpus = tiny_corpus(tmp_path / "text", "hu", 40)
    made = langadapt.extend_vocab(model=base, corpus=corpus, out=tmp_path / "t", size=30, min_count=2, lang="hu")
    told = [json.loads(line) for line in (made.path / "vocab_map.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    new_ids = {int(line["id"]) for line in told if "old_id" not in line}
    assert len(new_ids) == made.facts["added"]
    old, before, after = without_tokens(made.path, new_ids), load_tokenizer(base), load_tokenizer(made.path)
    changed = 0
    for text in [*tiny_text("hu", 20), "The river, 1848!\n\n  <s> ▁x 老房子 \U0001f469", "", " "]:
        assert spans(old, text) == spans(before, text)
        changed += spans(after, text).ids != spans(before, text).ids
    assert changed >= 20


def test_the_old_tokenizer_of_one_made_by_hand(tmp_path: Path, tiny: Path) -> None:
    folder = extended_tokenizer(tiny, tmp_path / "t")
    before, after = load_tokenizer(tiny), load_tokenizer(folder)
    old = without_tokens(folder, range(len(before), len(after)))
    text = " szesz szél ú"
    assert old(text)["input_ids"] == before(text)["input_ids"] != after(text)["input_ids"]
