"""counts against loops in float64: the alignment of words, the spreading over tokens, and the smoothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.embed import bitext
from langadapt.embed.bitext import WordPairs, word_pairs
from langadapt.embed.counts import Options, counts
from langadapt.embed.inputs import InitInputs
from langadapt.embed.token_counts import TokenCounts, spread
from langadapt.embed.words import words_of
from tests.fixtures.given import World, some_table, world


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def only(inputs: InitInputs, **given: Any) -> InitInputs:
    """The inputs with nothing given but these lines."""
    nothing = dict.fromkeys(("counts", "dictionary", "parallel"))
    opened = {name: (lambda lines=lines: iter(lines)) for name, lines in given.items()}
    return replace(inputs, given=replace(inputs.given, **nothing | opened))


SENTENCES = [
    ("the house", "a ház"),
    ("the House is old", "A ház régi"),
    ("an old book", "régi könyv"),
    ("the book", "a könyv"),
    ("a big old house, by the river", "nagy régi ház a folyónál"),
    ("the river", "a folyó"),
    ("house", "ház"),
    ("", "üres"),
]


def oracle_links(sentences: list[tuple[str, str]], iterations: int) -> dict[tuple[str, str], float]:
    """Model 1 in both directions with dictionaries and loops."""
    pairs = [(words_of(first), words_of(second)) for first, second in sentences]
    pairs = [(first, second) for first, second in pairs if first and second]

    def frequency(side: int) -> dict[str, float]:
        words = [word.lower() for pair in pairs for word in pair[side]]
        return {word: words.count(word) / len(words) for word in words}

    alone = frequency(0), frequency(1)
    t: dict[tuple[int, str, str], float] = {}

    def posterior(pair: tuple[list[str], list[str]], i: int, j: int, made: int) -> float:
        """`made` is the side whose word is made by a word of the other."""
        first, second = pair

        def near(i: int, j: int) -> float:
            return float(np.exp(-4 * abs((i + 0.5) / len(first) - (j + 0.5) / len(second))))

        def weight(i: int, j: int) -> float:
            return near(i, j) * t.get((made, first[i].lower(), second[j].lower()), 1.0)

        others = [(i, k) for k in range(len(second))] if made == 0 else [(k, j) for k in range(len(first))]
        scale = 0.92 / sum(near(*other) for other in others)
        word = (first[i], second[j])[made].lower()
        total = scale * sum(weight(*other) for other in others) + 0.08 * alone[made][word]
        return scale * weight(i, j) / total

    links: dict[tuple[str, str], float] = {}
    for step in range(iterations + 1):
        new: dict[tuple[int, str, str], float] = {}
        for pair in pairs:
            for i, first in enumerate(pair[0]):
                for j, second in enumerate(pair[1]):
                    both = [posterior(pair, i, j, made) for made in (0, 1)]
                    for made in (0, 1):
                        key = (made, first.lower(), second.lower())
                        new[key] = new.get(key, 0.0) + both[made]
                    if step == iterations and both[0] * both[1] > 0.05:
                        links[first, second] = links.get((first, second), 0.0) + both[0] * both[1]
        sums: dict[tuple[int, str], float] = {}
        for (made, first, second), count in new.items():
            given = (made, (second, first)[made])
            sums[given] = sums.get(given, 0.0) + count
        t = {key: count / sums[key[0], key[2 - key[0]]] for key, count in new.items()}
    return links


def links(found: WordPairs) -> dict[tuple[str, str], float]:
    return {
        (found.base[left], found.new[right]): count
        for left, right, count in zip(found.left.tolist(), found.right.tolist(), found.counts.tolist(), strict=True)
    }


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("at_a_time", [1, 10**6])
def test_words_are_aligned_as_by_the_loops(iterations: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitext, "_LINKS_AT_A_TIME", at_a_time)
    found = word_pairs(SENTENCES, 100, iterations, Progress())
    assert found.sentences == 7
    assert links(found) == pytest.approx(oracle_links(SENTENCES, iterations), rel=1e-9)


def test_words_that_stand_together_find_each_other() -> None:
    found = links(word_pairs(SENTENCES * 3, 100, 5, Progress()))
    for first, second in [("house", "ház"), ("book", "könyv"), ("old", "régi"), ("river", "folyó")]:
        mine = {pair: count for pair, count in found.items() if pair[1] == second}
        assert max(mine, key=lambda pair: mine[pair]) == (first, second)


def test_so_many_pairs_and_links_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert word_pairs(SENTENCES, 2, 1, Progress()).sentences == 2
    assert word_pairs([("", "")], 2, 1, Progress()).sentences == 0
    assert word_pairs([("a " * 101, "b"), ("a", "b")], 2, 1, Progress()).sentences == 1
    monkeypatch.setattr(bitext, "MOST_LINKS", 10)
    progress = Progress()
    assert word_pairs(SENTENCES, 100, 1, progress).sentences == 2
    assert "the first 2 sentence pairs" in progress.warnings[0]


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 4), (3, 1), (2, 3), (4, 4), (6, 4)])
def test_half_is_spread_over_all_and_half_over_like_places(m: int, n: int) -> None:
    expected = np.zeros((n, m))
    for i in range(m * n):  # n times the old tokens, m times the new ones, side by side
        expected[i // m, i // n] += 0.5 / (m * n)
    expected += 0.5 / (m * n)
    np.testing.assert_allclose(spread(m, n), expected)
    assert spread(m, n).sum() == pytest.approx(1)


def test_counts_of_words_become_counts_of_their_tokens(place: World) -> None:
    inputs = place.inputs(some_table(place.base.size))
    pairs = WordPairs(["houses", "by"], ["szeszú", "szú"], np.array([0, 1]), np.array([0, 1]), np.array([6.0, 2.0]), 2)
    table = TokenCounts(inputs)
    table.add_words(pairs)
    expected: dict[tuple[int, int], float] = {}
    for first, second, count in [("houses", "szeszú", 6.0), ("by", "szú", 2.0)]:
        for prefix in ("", " "):
            old = inputs.base_tokenizer().encode(prefix + first, add_special_tokens=False).ids
            new = inputs.target_tokenizer().encode(prefix + second, add_special_tokens=False).ids
            for j, ours in enumerate(new):
                for i, theirs in enumerate(old):
                    share = spread(len(old), len(new))[j, i] * count
                    expected[ours, theirs] = expected.get((ours, theirs), 0.0) + share
    ids, olds, sums = table.sums()
    made = dict(zip(zip(ids.tolist(), olds.tolist(), strict=True), sums.tolist(), strict=True))
    assert made == pytest.approx(expected) and sums.sum() == pytest.approx(16)


def test_a_table_is_taken_as_it_stands(place: World) -> None:
    """p(old | new) of a table written by hand; what has no line is smoothed or gets its pieces."""
    table = some_table(place.base.size)
    lines = [("Ġthe", "sz", "3"), ("e", "sz", "1"), ("o", "sze", "2"), ("nothing", "sz", "9"), ("e", "sze", "0")]
    inputs = only(place.inputs(table), counts=lines)
    rows = counts(inputs, Options(smoothing=False))
    id = {place.base.piece(id): id for id in place.base.text_ids().tolist()}
    made = dict(zip((note["piece"] for note in rows.provenance), rows.apply(table), strict=True))
    np.testing.assert_allclose(made["sz"], 0.75 * table[id["Ġthe"]] + 0.25 * table[id["e"]], rtol=1e-5)
    np.testing.assert_allclose(made["sze"], table[id["o"]], rtol=1e-5)
    assert rows.reasons() == {"translations": 2, "no translation: mean of its pieces": 3}
    assert rows.measured == {"lines_of_counts": 4}
    assert "1 lines of counts name tokens that are none" in inputs.progress.warnings[0]


def test_smoothing_takes_longer_tokens_and_the_longest_inside(place: World) -> None:
    """`sze` (no line) begins `szesz`; ` sze` has `sz` inside, and a space that begins a word counts twice."""
    table = some_table(place.base.size)
    lines = [("Ġthe", "szesz", "1"), ("e", "sz", "1"), ("o", "z", "5"), ("a", "Ġ", "1")]
    rows = counts(only(place.inputs(table), counts=lines), Options())
    id = {place.base.piece(id): id for id in place.base.text_ids().tolist()}
    made = dict(zip((note["piece"] for note in rows.provenance), rows.apply(table), strict=True))
    # of those inside, `z` lies in `sz`
    np.testing.assert_allclose(made["sze"], (table[id["Ġthe"]] + table[id["e"]]) / 2, rtol=1e-5)
    np.testing.assert_allclose(made["Ġsze"], (2 * table[id["a"]] + table[id["e"]]) / 3, rtol=1e-5)
    reasons = rows.reasons()
    assert reasons["translations of tokens like it"] == 2 and reasons["no translation: mean of its pieces"] == 1


def test_dictionary_parallel_and_table_are_added_up(place: World) -> None:
    inputs = place.inputs(some_table(place.base.size))
    rows = counts(only(inputs, parallel=SENTENCES, dictionary=[("house", "sze")]), Options(min_count=0))
    assert rows.measured["aligned_sentences"] == 8 and rows.measured["word_pairs"] > 5
    fewer = counts(only(inputs, parallel=SENTENCES, dictionary=[("house", "sze")]), Options(min_count=1.5))
    assert 0 < fewer.measured["word_pairs"] < rows.measured["word_pairs"]
    both = counts(only(inputs, parallel=SENTENCES, counts=[("e", "sz", "1")]), Options())
    assert both.measured.keys() == {"lines_of_counts", "aligned_sentences", "word_pairs"}


@pytest.mark.parametrize("count", ["many", "-1", "nan", "inf", "1,5"])
def test_a_count_that_is_none(count: str, place: World) -> None:
    inputs = only(place.inputs(some_table(place.base.size)), counts=[("e", "sz", "1"), ("e", "sze", count)])
    with pytest.raises(DataError, match="the count of `e` and `sze`"):
        counts(inputs, Options())


def test_a_table_of_other_tokenizers(place: World) -> None:
    inputs = only(place.inputs(some_table(place.base.size)), counts=[("sz", "Ġthe", "1"), ("▁the", "▁sze", "1")])
    with pytest.raises(DataError, match="`sz`, `▁the` are none") as caught:
        counts(inputs, Options())
    assert "<TAB>" in (caught.value.hint or "")


def test_nothing_that_can_be_used(place: World) -> None:
    """Sentences without words: every token has its pieces."""
    table = some_table(place.base.size)
    inputs = only(place.inputs(table), parallel=[("!", "?")])
    rows = counts(inputs, Options())
    assert rows.reasons() == {"no translation: mean of its pieces": len(inputs.new_tokens)}
