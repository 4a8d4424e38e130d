"""Several target languages: bytes of a script, shares by temperature, counts in real words."""

import pytest

from langadapt.core.errors import DataError
from langadapt.core.types import NewToken
from langadapt.vocab import scripts, shares, slots
from langadapt.vocab.family import Growth


@pytest.mark.parametrize(
    ("content", "names", "holds"),
    [
        ("αβγ".encode(), {"GREEK"}, True),
        (" α".encode(), {"GREEK"}, True),
        (b", and", {"GREEK"}, False),
        ("πr²".encode()[2:], {"GREEK"}, False),
        (b"\xce", {"GREEK"}, True),  # U+0380 to U+03BF
        (b"\xcd", {"GREEK"}, False),  # U+0340 to U+037F has combining marks too
        (b" \xd0", {"CYRILLIC"}, True),
        (b"\xe0\xa4", {"DEVANAGARI"}, True),
        (b"\xe0", {"DEVANAGARI"}, False),
        (b"\xe1\x88", {"ETHIOPIC"}, True),
        (b"\xf0", {"GOTHIC"}, False),
        (b"\xe4\xb8", {"CJK"}, True),
        (b"", {"CJK"}, False),
    ],
)
def test_bytes_that_only_a_script_has(content, names, holds):
    assert scripts.only_in(content, names) is holds


def test_scripts_of_texts():
    assert scripts.main_scripts(["η γλώσσα", "a"]) == {"GREEK", "LATIN"}
    assert scripts.main_scripts(["η γλώσσα είναι ωραία και το σπίτι " * 3, "a"]) == {"GREEK"}
    assert scripts.main_scripts(["12 %", ""]) == set()
    assert scripts.shown_script(" и".encode()) == "Cyrillic" and scripts.shown_script(b"\xd0") == "part of a character"
    assert scripts.shown_script(b"--") == "other" and scripts.shown_script(b"  ") == "other"
    assert scripts.script_of("\u0301") is None and scripts.script_of("µ") is None


# several target languages


def test_shares_follow_the_temperature():
    assert shares.shares([900, 100], 1) == pytest.approx([0.9, 0.1])
    assert shares.shares([900, 100], 2) == pytest.approx([0.75, 0.25])
    assert shares.shares([900, 100], 100) == pytest.approx([0.5, 0.5], abs=0.01)
    assert shares.weights([900], 3) == [1]
    assert shares.weights([900, 100], 1) == [1000, 1000]
    factors = shares.weights([900, 100], 2)
    assert factors == [333, 1000]
    assert 900 * factors[0] / (900 * factors[0] + 100 * factors[1]) == pytest.approx(0.75, abs=0.001)


def test_words_are_blended_and_counts_are_given_in_real_ones():
    assert shares.blend([{"a": 3, "b": 1}, {"a": 1, "c": 2}], [333, 1000]) == {"a": 1999, "b": 333, "c": 2000}
    growth = Growth(
        merges=(),
        tokens=(NewToken(1, "a", b"a", 12_333, "merge 1"),),
        learned=(15_000,),
        stepping_stones=frozenset(),
        notes={},
    )
    assert shares.in_units(growth, 1) is growth
    given = shares.in_units(growth, 1000)
    assert given.tokens[0].count == 12 and given.learned == (15,)


def test_families_whose_tokens_are_not_nested_have_no_automatic_size():
    class Other:
        name = "unigram"

    with pytest.raises(DataError, match="in BPE tokenizers only, and this is unigram") as caught:
        slots.insist_on_nested(Other())
    assert "--size 4k" in str(caught.value.hint)
