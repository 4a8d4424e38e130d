"""Facts in, advice out: every rule of the preview, on both sides of its threshold."""

import dataclasses

import pytest

from langadapt.vocab.advice import (
    SIZES,
    TEXT_BYTES_PER_NEW_TOKEN,
    Candidate,
    Facts,
    advise_base,
    advise_instead,
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
    found = advise_instead(dataclasses.replace(base, **changes))  # type: ignore[arg-type]
    assert [item.verdict for item in found] == (["or make a new tokenizer"] if wanted else [])
    if wanted:
        command = "langadapt train-tokenizer base data/hu --size 16k --lang hu --out work/own"
        assert found[0].command == command and found[0] in advise_vocabulary(dataclasses.replace(base, **changes))  # type: ignore[arg-type]


# Gemma 3 270M: 262,144 rows of 640, of 268 million parameters
LARGE_TABLE = {"vocabulary": 262_144, "row_parameters": 640, "parameters": 268_000_000, "source": "en"}


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({"used_rows": 40_000}, ["trim the vocabulary first"]),
        ({"used_rows": 131_073}, ["or append in the same size"]),
        ({"used_rows": None}, []),
        ({"used_rows": 250_000}, []),
        # half of the rows of SmolLM2, 10 % of its parameters
        ({"used_rows": 24_000, "vocabulary": 49_152, "row_parameters": 576, "parameters": 134_000_000},
         ["or append in the same size"]),
        ({"used_rows": 40_000, "trimmable": False}, ["or append in the same size"]),
        ({"used_rows": 40_000, "trimmable": False, "refusal": "its kind is unknown"}, []),
        ({"used_rows": 250_000, "text_bytes": 400_000}, ["or append in the same size"]),
    ],
)  # fmt: skip
def test_rows_that_no_text_uses_can_go_or_be_taken(changes: dict[str, object], verdicts: list[str]) -> None:
    asked = facts(**{**LARGE_TABLE, **changes})
    found = advise_instead(asked, {"hu": "corpora/hu"})
    assert [item.verdict for item in found] == verdicts
    if verdicts == ["trim the vocabulary first"]:
        assert found[0].command == "langadapt trim-vocab base corpora/hu data/en --out work/trimmed"
        assert "222,144 of 262,144 tokens" in found[0].why and "53% of all parameters" in found[0].why
        alone = advise_instead(dataclasses.replace(asked, source=None))[0]
        assert "--source-text" in alone.why and alone.command.endswith("base data/hu --out work/trimmed")
    elif verdicts:
        assert "--mode same-size --out work/tokenizer" in found[0].command and "--guard data/en" in found[0].command


def test_unknown_tokens_say_nothing_about_cost() -> None:
    """A word with one unknown letter is one token: the language looks cheap where it cannot be read."""
    asked = facts(hidden_share=0.3, unspellable=("ő",), adds_letters=True, source_tokens_per_word=5.0)
    first, second = advise_vocabulary(asked)
    assert asked.premium is None and first.verdict == "add the missing letters first"
    assert second.verdict == "append 4,000 tokens" and "unknown tokens today" in second.why
    assert advise_vocabulary(facts(hidden_share=0.3, text_bytes=100_000))[-1].verdict == "leave the vocabulary alone"


def test_letters_that_are_read_as_others_cannot_come_back() -> None:
    (first, *_) = advise_vocabulary(facts(unspellable=("ő",), altered=("ő",), adds_letters=True))
    assert first.verdict == "do not start from this model" and "strips accents" in first.why


def test_what_has_no_bits_per_byte_is_not_scored() -> None:
    advice = advise_worth(facts(unscored="bits per byte are not defined for an encoder (BertForMaskedLM)"))
    assert advice.verdict == "not scored" and "encoder (BertForMaskedLM)" in advice.why


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


def test_the_verdict_on_a_score_says_how_sure_it_is() -> None:
    scored = {"bits": 2.81, "guessing_bits": 7.41, "ngram_bits": 2.9}
    assert "2.81 ± 0.36 bits per byte, n-grams" in advise_worth(facts(**scored, bits_error=0.18)).why
    assert "2.81 bits per byte, n-grams" in advise_worth(facts(**scored)).why
