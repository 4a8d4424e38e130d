"""Facts in, advice out: every rule of the preview, on both sides of its threshold."""

import dataclasses

import pytest

from langadapt.vocab.advice import (
    SIZES,
    TEXT_BYTES_PER_NEW_TOKEN,
    Candidate,
    Facts,
    advise_base,
    advise_vocabulary,
    advise_worth,
    appended,
    best_size,
    extend_command,
)
from langadapt.vocab.predict import Rates, adapted

# Hungarian on SmolLM2, with 6 MB of text
HUNGARIAN = Facts(
    model="base", lang="hu", vocabulary=49_152, bytes_per_token=2.14, text_bytes=6_000_000, tokens_per_word=3.89
)


def facts(**changes: object) -> Facts:
    return dataclasses.replace(HUNGARIAN, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "append 8,000 tokens", "too small to train more rows"),
        ({"text_bytes": 3_000_000}, "append 4,000 tokens", "too small to train more rows"),
        ({"text_bytes": 50_000_000}, "append 8,000 tokens", "twice as many would save little more"),
        ({"text_bytes": 299_000}, "leave the vocabulary alone", "500 tokens want 300 kB"),
        ({"parity": 1.29}, "leave the vocabulary alone", "1.29 times"),
        ({"parity": 1.31}, "append 8,000 tokens", "1.3 times the tokens of the source"),
        ({"source_tokens_per_word": 3.2}, "leave the vocabulary alone", "1.22 times"),
        ({"source_tokens_per_word": 1.4}, "append 8,000 tokens", "2.8 times"),
        ({"tokens_per_word": 1.9, "bytes_per_token": 4.4}, "leave the vocabulary alone", "do not pay"),
        ({"tokens_per_word": 2.1, "bytes_per_token": 4.0}, "append 8,000 tokens", "saves about 19%"),
        ({"refusal": "it is Unigram"}, "leave the vocabulary alone", "it is Unigram"),
        ({"tokens_per_word": None, "bytes_per_token": 1.66}, "append 8,000 tokens", "saves about"),
        ({"training_tokens": 999_999}, "append 8,000 tokens", "compare with a control"),
    ],
)
def test_what_to_do_with_the_vocabulary(changes: dict[str, object], verdict: str, reason: str) -> None:
    (advice,) = advise_vocabulary(facts(**changes))
    assert advice.verdict == verdict
    assert reason in advice.why
    assert (appended(facts(**changes)) is None) == (verdict == "leave the vocabulary alone") == (advice.command == "")


def test_more_training_needs_no_word_about_a_control() -> None:
    assert "control" not in advise_vocabulary(facts(training_tokens=1_000_000))[0].why


def test_parity_counts_more_than_words() -> None:
    assert facts(parity=1.1, source_tokens_per_word=1.0).premium == 1.1


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"text_bytes": 999_000_000}, False),
        ({"source": "en"}, False),
        ({"tokens_in_script": 1000}, False),
        ({"parity": 2.9}, False),
    ],
)
def test_a_new_tokenizer_only_for_much_text_in_a_script_without_tokens(
    changes: dict[str, object], wanted: bool
) -> None:
    base = facts(text_bytes=2_000_000_000, tokens_in_script=50, parity=4.0)
    (advice,) = advise_vocabulary(dataclasses.replace(base, **changes))  # type: ignore[arg-type]
    assert ("new tokenizer" in advice.verdict) == wanted


def test_letters_are_said_before_the_rest() -> None:
    first, second = advise_vocabulary(facts(in_pieces=("ő", "ű")))
    assert first.verdict == "letters come first" and "ő ű" in first.why
    assert second.verdict == "append 8,000 tokens"


def test_letters_that_cannot_be_written() -> None:
    added = advise_vocabulary(facts(unspellable=("ő",), adds_letters=True))[0]
    assert added.verdict == "add the missing letters first" and added.command.startswith("langadapt extend-vocab base")
    lost = advise_vocabulary(facts(unspellable=("ő",)))[0]
    assert lost.verdict == "do not start from this model" and lost.command == ""
    hidden = advise_vocabulary(facts(hidden_share=0.02))[0]
    assert "2.0% of the bytes" in hidden.why


def test_the_size_is_where_doubling_stops_to_pay() -> None:
    """The same by trying every size."""
    rates = Rates(HUNGARIAN.tokens_per_word, HUNGARIAN.bytes_per_token)
    left = [1 / adapted(rates, size).bytes_per_token for size in SIZES]
    best = next(i for i in range(len(SIZES)) if i + 1 == len(SIZES) or 1 - left[i + 1] / left[i] < 0.10)
    found = best_size(facts(text_bytes=10**10))
    assert found is not None and found.tokens == SIZES[best]
    assert found.saving == pytest.approx(1 - left[best] * HUNGARIAN.bytes_per_token, abs=1e-3)
    for size in SIZES[: best + 1]:
        few = best_size(facts(text_bytes=size * TEXT_BYTES_PER_NEW_TOKEN))
        assert few is not None and few.tokens == size


def test_the_command_protects_the_source_and_survives_the_shell() -> None:
    size = best_size(HUNGARIAN)
    command = extend_command(facts(model="my model", source="en"), size, {"hu": "corpora/x"})
    assert command == "langadapt extend-vocab 'my model' corpora/x --guard data/en --size 8k --out work/tokenizer"


@pytest.mark.parametrize(
    ("bits", "size", "verdict", "regime"),
    [
        (6.9, 5_000_000, "a start from nearly nothing", "under 10 MB"),
        (2.8, 50_000_000, "worth adapting", "10 to 100 MB"),
        (2.8, 2_000_000_000, "worth adapting", "over 1 GB"),
        (None, 500_000_000, "not scored", "100 MB to 1 GB"),
    ],
)
def test_is_it_worth_it(bits: float | None, size: int, verdict: str, regime: str) -> None:
    advice = advise_worth(facts(bits=bits, guessing_bits=7.3, text_bytes=size))
    assert advice.verdict == verdict
    assert regime in advice.why


@pytest.mark.parametrize(
    ("bits", "verdict"), [(3.0, "worth adapting"), (2.1, "worth adapting"), (1.9, "knows it already")]
)
def test_n_grams_tell_whether_there_is_much_to_gain(bits: float, verdict: str) -> None:
    """SmolLM2 is at 0.97 of the n-grams on Hungarian and gained a third; it must not be called done."""
    assert advise_worth(facts(bits=bits, guessing_bits=7.3, ngram_bits=2.9)).verdict == verdict


def candidate(model: str, bits: list[float], **more: object) -> Candidate:
    passages = tuple((value * 400, 400) for value in bits)
    return Candidate(model=model, bits=sum(bits) / len(bits), passages=passages, **more)  # type: ignore[arg-type]


def test_one_model_needs_no_choice() -> None:
    assert advise_base([candidate("a", [2.0, 2.1])]) == []


def test_clearly_fewer_bits_decide() -> None:
    (advice,) = advise_base([candidate("a", [2.9, 3.0, 3.1]), candidate("b", [2.0, 2.1, 2.2])])
    assert advice.verdict == "start from b"
    assert "does not decide" in advice.why


def test_a_difference_within_noise_leaves_it_to_the_price() -> None:
    close = [candidate("dear", [2.0, 2.1, 2.2], seconds_a_pass=900.0),
             candidate("cheap", [2.05, 2.15, 2.25], seconds_a_pass=90.0)]  # fmt: skip
    (advice,) = advise_base(close)
    assert advice.verdict == "start from cheap"
    assert "15 min 0 s with `dear`, 1 min 30 s with `cheap`" in advice.why
    noisy = [candidate("a", [1.0, 4.0, 1.0], seconds_a_pass=9.0), candidate("b", [3.0, 1.0, 3.2], seconds_a_pass=1.0)]
    assert advise_base(noisy)[0].verdict == "start from b", "0.4 bits apart, but not passage by passage"


def test_what_cannot_be_the_start_is_left_out() -> None:
    (advice,) = advise_base([candidate("a", [1.0, 1.1], usable="too large"), candidate("b", [2.0, 2.1])])
    assert advice.verdict == "start from b" and "`a` is out: too large" in advice.why
    (none,) = advise_base([candidate("a", [1.0], usable="x"), candidate("b", [1.0], usable="y")])
    assert none.verdict == "none of them"
