"""Trimming WordPiece and Unigram tokenizers: text keeps its tokens, by slow models; and the checks see damage."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import langadapt
from langadapt.core.errors import DataError
from langadapt.model.token_table import TokenTable
from langadapt.vocab import moved_checks
from langadapt.vocab.letters import is_closed
from langadapt.vocab.outcome import insist
from langadapt.vocab.renumber import in_order, renumbered
from langadapt.vocab.trimming import changed_words, trim
from langadapt.vocab.uses import uses_on
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_set_modes import BASES
from tests.contract.test_vocab_set_steps import FOLDERS, TEXT, place
from tests.contract.test_vocab_sets import BASES as SMALL
from tests.contract.test_vocab_surgery import file_of
from tests.fixtures.oracles import random_base, random_words, slow_ids

__all__ = ["place"]
NEEDED = "the house stands on the hill and the river runs below the houses\n1 é\n" * 3
LAYOUTS = BASES | {"added behind": SMALL["added behind"]}
each_family = pytest.mark.parametrize("layout", ["bert cased", "xlmr"])


def trimmed(base, text=NEEDED, **wish):
    words = count_words(base, text.splitlines())
    found = trim(base, words, [], **{"min_count": 1, **wish})
    ids = in_order(set(found.kept))
    return found, ids, file_of(renumbered(base, ids)), words


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_passes_all_checks_and_text_keeps_its_tokens(layout):
    base = LAYOUTS[layout]
    found, ids, new, words = trimmed(base)
    insist(moved_checks.moved_checks(base, new, ids, words))
    assert changed_words(base, new, words, ids) == (0, 0)
    assert len(new.pieces) == len(found.kept) < len(base.pieces) and is_closed(new)
    pieces = {id: piece for piece, id in new.pieces.items()}
    assert pieces[new.unknown] == next(piece for piece, id in base.pieces.items() if id == base.unknown)
    assert all(found.uses[id] for id, why in found.reasons.items() if why == "used")
    special = next(iter(base.added))
    for line in [*NEEDED.splitlines(), f"the {special} river", "hill ő, qqq"]:
        before, after = base.tokenizer.encode(line), new.tokenizer.encode(line)
        if "ő" not in line:
            assert [ids[number] for number in before.ids] == after.ids
        assert before.ids.count(base.unknown) == after.ids.count(new.unknown)
        assert base.tokenizer.decode(before.ids) == new.tokenizer.decode(after.ids)


@pytest.mark.parametrize("family", ["wordpiece", "unigram"])
@pytest.mark.parametrize("min_count", [1, 3])
def test_words_whose_tokens_stay_keep_them(family, min_count):
    random = np.random.default_rng(4)
    examined = 0
    for _ in range(60):
        base = random_base(family, random)
        words = Counter(random_words(family, random, 12))
        found = trim(base, words, [], min_count=min_count)
        ids = in_order(set(found.kept))
        new = file_of(renumbered(base, ids))
        for word in words:
            before, after = slow_ids(base, word), slow_ids(new, word)
            if base.unknown in before:
                continue
            if all(id in ids for id in before):
                examined += 1
                assert [ids[id] for id in before] == after, (base.spec, words)
            assert min_count > 1 or all(id in ids for id in before)
            assert new.unknown not in after or not is_closed(base)
        left = uses_on(new, words)
        for old, id in ids.items():
            assert found.reasons[old] != "used" or left[id] >= min_count
    assert examined > 100


@each_family
def test_a_size_keeps_exactly_so_many(layout):
    base = LAYOUTS[layout]
    everything, *_ = trimmed(base, "\n".join(TEXT))
    fixed = sum(why != "used" for why in everything.reasons.values())
    for size in (len(everything.kept) - 1, fixed + 40, fixed + 3, fixed):
        found, ids, new, words = trimmed(base, "\n".join(TEXT), size=size)
        assert len(found.kept) == size == len(new.pieces)
        insist([moved_checks.words_kept(base, new, ids, words), moved_checks.ids_follow(base, new, ids)])
    with pytest.raises(DataError, match="tokens cannot go"):
        trimmed(base, "\n".join(TEXT), size=fixed - 1)


@pytest.mark.parametrize("family", ["wordpiece", "xlmr", "t5"])
def test_the_step_writes_what_transformers_loads(place: Path, family: str) -> None:
    artifact = langadapt.trim_vocab(model=place / family, corpora=[place / "en"], out=place / f"{family}-trimmed")
    facts = artifact.facts
    assert facts["words_changed"] == 0 and facts["dropped"] > 40 and facts["added"] == 0
    assert facts["held_out_lines_same_ids"] == 1.0 and FOLDERS[family] is not None
    before, after = (AutoTokenizer.from_pretrained(str(path)) for path in (place / family, artifact.path))
    assert len(after) == facts["vocabulary_after"] == len(before) - facts["dropped"]
    line = "the house stands on the hill"
    ids = [before(line)["input_ids"], after(line)["input_ids"]]
    assert before.convert_ids_to_tokens(ids[0]) == after.convert_ids_to_tokens(ids[1]) and ids[0] != ids[1]
    assert after.convert_ids_to_tokens(after("ξ")["input_ids"])[-2] in (after.unk_token, "▁", after.eos_token)
    base, new = TokenTable.from_folder(place / family), TokenTable.from_folder(artifact.path)
    assert set(new.pieces) < set(base.pieces)


# Damage


@each_family
def test_damage_is_seen(layout):
    base = LAYOUTS[layout]
    found, ids, new, words = trimmed(base)
    used = next(id for id, why in found.reasons.items() if why == "used")
    fewer = in_order(set(found.kept) - {used})
    names = {
        one.name for one in moved_checks.moved_checks(base, file_of(renumbered(base, fewer)), ids, words) if one.broken
    }
    assert {"ids_follow", "words_kept"} <= names
    assert changed_words(base, file_of(renumbered(base, fewer)), words, fewer)[0] > 0
    letter = next(id for id, why in found.reasons.items() if why == "character" and found.uses.get(id))
    fewer = in_order(set(found.kept) - {letter})
    names = {
        one.name
        for one in moved_checks.moved_checks(base, file_of(renumbered(base, fewer)), fewer, words)
        if one.broken
    }
    assert "still_spelled" in names
    if layout == "xlmr":
        for damage in ("unknown", "score", "lowest"):
            spec = json.loads(json.dumps(new.spec))
            if damage == "unknown":
                spec["model"]["unk_id"] = base.unknown + 1
            elif damage == "score":
                spec["model"]["vocab"][-2][1] -= 0.01
            else:
                lowest = min(entry[1] for entry in spec["model"]["vocab"])
                spec["model"]["vocab"] = [
                    [f"{piece}!" if score == lowest else piece, max(score, lowest + 1)]
                    for piece, score in spec["model"]["vocab"]
                ]
            names = {one.name for one in moved_checks.moved_checks(base, file_of(spec), ids, words) if one.broken}
            assert ("sections_same" if damage == "unknown" else "scores_are_those_of_kept") in names


def test_the_piece_that_the_unknown_is_reckoned_from_stays():
    spec = json.loads(json.dumps(LAYOUTS["xlmr"].spec))
    number = next(id for id, (piece, _) in enumerate(spec["model"]["vocab"]) if piece == "▁haus")
    spec["model"]["vocab"][number][1] = -30.0
    base = file_of(spec)
    found, ids, new, words = trimmed(base)
    assert found.reasons[number] == "lowest score" and new.lowest_score == -30.0
    fewer = in_order(set(found.kept) - {number})
    without = file_of(renumbered(base, fewer))
    names = {one.name for one in moved_checks.moved_checks(base, without, fewer, words) if one.broken}
    assert names == {"scores_are_those_of_kept"} and len(ids) == len(fewer) + 1


def test_a_score_that_the_library_reads_one_unit_off_is_the_same():
    """It writes -3.5509755611419678 as -3.550975561141968; a real XLM-R kind could not be trimmed for this."""
    base = LAYOUTS["xlmr"]
    _, ids, new, _ = trimmed(base)
    for factor, broken in ((1 + 2**-52, False), (1 + 1e-9, True)):
        spec = json.loads(json.dumps(new.spec))
        spec["model"]["vocab"] = [[piece, score * factor] for piece, score in spec["model"]["vocab"]]
        assert any(spec["model"]["vocab"][id][1] != new.model["vocab"][id][1] for id in ids.values())
        assert bool(moved_checks.scores_are_those_of_kept(base, file_of(spec)).broken) == broken
