"""Near-duplicates and boilerplate against slow and obvious versions of the same rules."""

import gzip
import json
import random
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langadapt
from langadapt.core.artifact import Artifact
from langadapt.corpus.boilerplate import LineCounts
from langadapt.corpus.clusters import near_duplicates, union
from langadapt.corpus.dedup import content_hash
from langadapt.corpus.neardup import BANDS, ROWS, SHINGLE, band_keys, shingles
from langadapt.corpus.store import documents

WORDS = [f"{a}{b}{c}" for a in "bdgk" for b in "aeiou" for c in "lmnr"]


def jaccard(one: str, other: str) -> float:
    """Similarity of the sets of word 5-grams, by definition."""
    sets = []
    for text in (one, other):
        words = text.lower().split()
        sets.append({tuple(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)})
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))


def document(moments: random.Random, length: int = 80) -> str:
    return " ".join(moments.choice(WORDS) for _ in range(length))


def changed(moments: random.Random, text: str, edits: int) -> str:
    words = text.split()
    for _ in range(edits):
        words[moments.randrange(len(words))] = moments.choice(WORDS)
    return " ".join(words)


def share_a_key(one: str, other: str) -> bool:
    keys, enough = band_keys([one, other])
    return bool(enough.all()) and bool((keys[:, 0] == keys[:, 1]).any())


def test_the_share_of_pairs_found_follows_the_formula() -> None:
    """1 - (1 - J^8)^14, over 300 pairs at each of three similarities, within four standard errors."""
    moments = random.Random(1)
    for edits in (1, 3, 6):
        found, expected, variance = 0, 0.0, 0.0
        for _ in range(300):
            text = document(moments)
            other = changed(moments, text, edits)
            probability = 1 - (1 - jaccard(text, other) ** ROWS) ** BANDS
            found += share_a_key(text, other)
            expected += probability
            variance += probability * (1 - probability)
        assert abs(found - expected) <= 4 * variance**0.5 + 2, edits


def test_different_texts_are_hardly_ever_taken_for_near() -> None:
    moments = random.Random(2)
    texts = [document(moments) for _ in range(400)]
    keys, _ = band_keys(texts)
    for band in keys:
        assert len(set(band.tolist())) == len(texts)


@pytest.mark.parametrize("text", ["aa bb cc dd ee ff", "AA  bb, cc\ndd - ee (ff)", "aa bb cc dd ee ff!"])
def test_case_spaces_and_punctuation_do_not_count(text: str) -> None:
    assert shingles([text])[0].tolist() == shingles(["aa bb cc dd ee ff"])[0].tolist()


def test_scripts_without_spaces_are_cut_by_character() -> None:
    thai = "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน"
    assert shingles([thai])[1].tolist() == [len(thai) - SHINGLE + 1]
    assert shingles([thai + " " + thai])[1].tolist() == [2 * len(thai) - SHINGLE + 1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from("abc "), max_size=30).map("".join), min_size=1, max_size=8))
def test_a_batch_gives_what_its_texts_give_alone(texts: list[str]) -> None:
    hashes, counts = shingles(texts)
    assert counts.tolist() == [max(0, len(text.split()) - SHINGLE + 1) for text in texts]
    assert hashes.tolist() == [value for text in texts for value in shingles([text])[0].tolist()]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(
    st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40))))  # fmt: skip
def test_union_finds_connected_components(case: tuple[int, list[tuple[int, int]]]) -> None:
    """Against the slow way: the smallest number that can be reached."""
    count, pairs = case
    parent = np.arange(count, dtype=np.uint32)
    if pairs:
        first, second = (np.array(side, np.uint32) for side in zip(*pairs, strict=True))
        union(parent, first, second)
    reached = [{number} for number in range(count)]
    for _ in range(count):
        for one, other in pairs:
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    roots = []
    for number in range(count):
        while parent[number] != number:
            number = int(parent[number])
        roots.append(number)
    assert roots == [min(each) for each in reached]


def test_clusters_join_chains_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    moments = random.Random(3)
    texts: list[str] = []
    for _ in range(40):
        text = document(moments)
        texts.append(text)
        for _ in range(moments.randrange(3)):
            text = changed(moments, text, 1)
            texts.append(text)
    numbers = list(range(len(texts)))
    root = near_duplicates(((n, texts[n]) for n in numbers), len(texts), tmp_path)
    moments.shuffle(numbers)
    again = near_duplicates(((n, texts[n]) for n in numbers), len(texts), tmp_path)
    assert root.tolist() == again.tolist()
    for one, other in combinations(range(len(texts)), 2):
        similar = jaccard(texts[one], texts[other])
        assert similar < 0.95 or root[one] == root[other]


def prepare(folder: Path, texts: list[str], name: str = "out", **more: Any) -> Artifact:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return langadapt.prepare(out=folder / name, text=[file], lang="hu", min_lang_probability=0.0, **more)


def packed_lines(artifact: Artifact, name: str) -> list[bytes]:
    return gzip.decompress((artifact.path / f"{name}.jsonl.gz").read_bytes()).splitlines()


def test_the_longest_of_a_cluster_stays_with_its_size(tmp_path: Path) -> None:
    moments = random.Random(4)
    text = document(moments, 200)
    longest = f"{text} and a little more at the end"
    others = [document(moments, 60) for _ in range(30)]
    artifact = prepare(tmp_path, [text, changed(moments, text, 1), longest, text, *others])
    assert artifact.facts["near_duplicates"] == {"clusters": 1, "documents": 3, "largest": 3}
    assert artifact.facts["dropped"]["near-duplicate"]["documents"] == 2
    assert artifact.facts["dropped"]["duplicate"]["documents"] == 1
    kept = {each.text for each in documents(artifact.path, "all")}
    assert longest in kept and text not in kept and len(kept) == 31
    marked = prepare(tmp_path, [text, changed(moments, text, 1), longest, *others], "marked", near_duplicates="mark")
    assert text in {each.text for each in documents(marked.path, "all")}
    assert "near-duplicate" not in marked.facts["dropped"]
    lines = [json.loads(line) for name in ("documents", "held-out") for line in packed_lines(marked, name)]
    cluster = [line for line in lines if "cluster" in line]
    assert len(cluster) == 3 and {line["cluster_size"] for line in cluster} == {3}


def test_a_cluster_is_held_out_whole(tmp_path: Path) -> None:
    """Kept all, near-duplicates never stand on both sides."""
    moments = random.Random(5)
    texts = []
    for _ in range(60):
        text = document(moments, 120)
        texts += [text, changed(moments, text, 1), changed(moments, text, 1)]
    artifact = prepare(tmp_path, texts, near_duplicates="mark", held_out_share=0.3)
    train, held = ([each.text for each in documents(artifact.path, side)] for side in ("train", "held-out"))
    assert 20 < len(held) < 100
    smallest: dict[str, set[int]] = {}
    for name in ("documents", "held-out"):
        for line in map(json.loads, packed_lines(artifact, name)):
            smallest.setdefault(line["cluster"], set()).add(content_hash(line["text"])[1])
    assert {key: f"{min(found):016x}" for key, found in smallest.items()} == {key: key for key in smallest}
    assert max(jaccard(one, other) for one in held for other in train) < 0.6


def test_more_text_moves_no_document_to_the_other_side(tmp_path: Path) -> None:
    moments = random.Random(6)
    texts = [document(moments) for _ in range(200)]
    before = prepare(tmp_path, texts, "before", held_out_share=0.2)
    after = prepare(tmp_path, [document(moments) for _ in range(100)] + texts, "after", held_out_share=0.2)
    sides = [{each.text for each in documents(artifact.path, "held-out")} for artifact in (before, after)]
    assert sides[0] == sides[1] & set(texts)


def test_boilerplate_lines_stay_once(tmp_path: Path) -> None:
    """A line in more than three documents and 1 % of them; shorter lines and rarer ones stay everywhere."""
    moments = random.Random(7)
    banner, short, rare = (
        "This page was last edited by somebody",
        "Share this page",
        "See also the other volume of this",
    )
    texts = []
    for number in range(50):
        lines = [document(moments, 20), short, document(moments, 20)]
        lines += [banner] if number % 2 else []
        lines += [rare] if number < 3 else []
        texts.append("\n".join(lines))
    artifact = prepare(tmp_path, texts, held_out_share=0.0)
    found = "\n".join(each.text for each in documents(artifact.path, "all"))
    assert (found.count(banner), found.count(short), found.count(rare)) == (1, 50, 3)
    assert artifact.facts["dropped"]["boilerplate"] == {"documents": 0, "bytes": 24 * (len(banner) + 1)}
    assert artifact.facts["boilerplate"] == [f"25 x {banner}"]
    whole = prepare(tmp_path, texts, "whole", held_out_share=0.0, boilerplate="keep")
    assert "\n".join(each.text for each in documents(whole.path, "all")).count(banner) == 25


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sets(st.integers(0, 40), max_size=6), max_size=60), st.integers(3, 12))
def test_counting_in_little_memory_misses_no_common_line(sets: list[set[int]], limit: int) -> None:
    counts = LineCounts(limit=limit)
    for keys in sets:
        counts.add(keys)
    exact = {key: sum(key in each for each in sets) for key in range(41)}
    for key, count in exact.items():
        assert count - counts.error <= counts.counts.get(key, 0) <= count
        if count > counts.threshold:
            assert key in counts.candidates()
    assert len(counts.counts) <= limit


@pytest.mark.parametrize("lines", [1_000, 43_000, 60_000, 87_000])
def test_the_price_of_counted_lines_is_what_they_take(lines: int) -> None:
    """A key is an object of 48 bytes; the table is full to between a third and two thirds."""
    counts = LineCounts()
    counts.add({(number * 0x9E3779B97F4A7C15) % 2**64 for number in range(1, lines + 1)})
    taken = 48 * lines + sys.getsizeof(counts.counts)
    assert taken == pytest.approx(LineCounts.memory_bytes(lines), rel=0.1)
    assert LineCounts.memory_bytes(10**9) == LineCounts.memory_bytes(10**8) and LineCounts.memory_bytes(0) == 0
