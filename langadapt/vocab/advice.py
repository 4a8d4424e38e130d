"""From what was measured of a model and a text to advice with reasons: pure rules, every threshold in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from shlex import quote

from langadapt.core.units import show_seconds
from langadapt.vocab.predict import Rates, adapted

# Fewer tokens are saved than this and a new vocabulary is not worth its untrained rows. The prediction itself is good
# to 17 % (vocab/predict.py), so a smaller promise is no promise.
LEAST_SAVING = 0.15
# Tokens of the target over tokens of the source for the same content. Dutch on Llama-2 gained from a new vocabulary,
# on Llama-3, where the premium is under 1.3, hardly (ChocoLlama, Meeus et al. 2024).
LEAST_PREMIUM = 1.3
# Hungarian on SmolLM2: of 4,000 tokens learned on 4.6 MB 1.3 % are never produced again, of 8,000 (one for 580 bytes
# of text) 2.6 %; rows without text stay where initialisation left them.
TEXT_BYTES_PER_NEW_TOKEN = 600
SIZES = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
# Doubling the new tokens has to save this share of the tokens once more. Measured on Hungarian: 4k -> 8k saves 10 %.
LEAST_DOUBLING = 0.10
# At 97k training tokens the control without new tokens was better by 0.083 bits per byte (95 % interval 0.055 to
# 0.109; README). Nothing was measured between this and ten times as much.
TINY_TRAINING_TOKENS = 1_000_000
# The token in front of the text alone moves SmolLM2 by 0.07 to 0.10 bits per byte.
EQUAL_BITS = 0.1
# A model this close to guessing among its tokens has learnt nothing of the language.
GUESSING = 0.9
# Against n-grams of 200 kB of the same Hungarian text: SmolLM2-135M is at 0.97 of their bits and loses a third by
# adapting; Gemma 3 270M, trained on many languages, is at 0.56. Nothing in between was measured.
KNOWS = 0.7
# A vocabulary that has nothing for the script: a new one would lose little of the old, if the source may be lost.
FEW_TOKENS_IN_SCRIPT = 1000
NEW_TOKENIZER_BYTES = 1_000_000_000
NEW_TOKENIZER_PREMIUM = 3.0
NEW_TOKENIZER_SIZE = 16_000
# Trimming SmolLM2 to 15 MB of English and Hungarian removes half of its rows, but these are 10 % of its parameters:
# not worth new ids. In Gemma 3 270M the table is 63 % of all parameters, most of it for other languages.
LEAST_UNUSED_ROWS = 0.5
LEAST_UNUSED_PARAMETERS = 0.2
# Only leaves can be given up, and the estimate of what is unused is rough.
UNUSED_A_NEW_TOKEN = 2
# Judgement from published adaptations (SSU, Latxa, ChocoLlama, MixCPT; research note data_and_cpt, section 3).
REGIMES = (
    (10_000_000, "under 10 MB: expect vocabulary and style, hardly any knowledge"),
    (100_000_000, "10 to 100 MB: expect clearly fewer bits per byte, little knowledge"),
    (1_000_000_000, "100 MB to 1 GB: expect clear gains in tasks as well"),
    (None, "over 1 GB: enough for a thorough continued pretraining"),
)
# Untokenised or altered text beyond a few stray symbols.
LOST_SHARE = 0.001
# More hidden than this and tokens per word say nothing: a word with one unknown letter is one token.
UNREADABLE_SHARE = 0.01
# What is saved cannot be foretold then; this many make the words of a language whole (README, Hungarian).
UNREADABLE_SIZE = 4000


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One model on one text. Shares are of bytes; None means not measured (`refusal`: why extend-vocab refuses it)."""

    model: str
    lang: str
    vocabulary: int
    bytes_per_token: float
    text_bytes: int
    tokens_per_word: float | None = None
    source_tokens_per_word: float | None = None
    parity: float | None = None
    hidden_share: float = 0.0
    unspellable: tuple[str, ...] = ()
    in_pieces: tuple[str, ...] = ()
    adds_letters: bool = False
    """Does extend-vocab give a letter that cannot be spelled a token (families with byte fallback)?"""
    tokens_in_script: int | None = None
    refusal: str | None = None
    bits: float | None = None
    bits_error: float | None = None
    """Standard error of `bits`."""
    guessing_bits: float | None = None
    ngram_bits: float | None = None
    """What n-grams learned from some of the text score."""
    training_tokens: int | None = None
    """Tokens that the budget pays for, or that the text has."""
    source: str | None = None
    """Language whose text is there to be protected; None: none is."""
    unscored: str | None = None
    """Why bits per byte cannot be had at all."""
    altered: tuple[str, ...] = ()
    """Those of `unspellable` that the tokenizer reads as something else: it strips accents, or lower-cases."""
    parameters: int = 0
    row_parameters: int = 0
    """Parameters of one row, in all tables together."""
    used_rows: int | None = None
    """Rows that the whole text is expected to use, source included, and those that trim-vocab keeps in any case."""
    trimmable: bool = True
    """Does trim-vocab take this tokenizer?"""

    @property
    def unreadable(self) -> bool:
        """Is so much of the text unknown tokens that their number says nothing?"""
        return self.hidden_share > UNREADABLE_SHARE

    @property
    def premium(self) -> float | None:
        """How many times the tokens of the source the target costs: on parallel text, else by words."""
        if self.unreadable:
            return None
        if self.parity is not None:
            return self.parity
        if self.tokens_per_word is None or self.source_tokens_per_word is None:
            return None
        return self.tokens_per_word / self.source_tokens_per_word


@dataclass(frozen=True)
class Advice:
    """What to do, why, and the command that does it (empty if there is none)."""

    verdict: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Size:
    """New tokens and the share of all tokens of the text that they save."""

    tokens: int
    saving: float


def best_size(facts: Facts) -> Size | None:
    """The size after which doubling saves too little or the text is too small for more; None: too small for any."""
    before = Rates(facts.tokens_per_word, facts.bytes_per_token)
    fitting = [size for size in SIZES if size * TEXT_BYTES_PER_NEW_TOKEN <= facts.text_bytes]
    if not fitting:
        return None
    if facts.unreadable:
        return Size(min(fitting[-1], UNREADABLE_SIZE), 0.0)
    left = {size: before.bytes_per_token / adapted(before, size).bytes_per_token for size in fitting}
    # where words are short already the first few hundred tokens save nothing by the rule, but thousands do
    pays = [size for half, size in pairwise(fitting) if 1 - left[size] / left[half] >= LEAST_DOUBLING]
    chosen = max(pays, default=fitting[0])
    return Size(chosen, 1 - left[chosen])


def advise_vocabulary(facts: Facts) -> list[Advice]:
    """Characters first, then one of: leave the vocabulary alone, or append; then what could be done instead."""
    return [*_characters(facts), _vocabulary(facts), *advise_instead(facts)]


def advise_instead(facts: Facts, places: Mapping[str, str] | None = None) -> list[Advice]:
    """Other ways with the vocabulary that the figures speak for: trim it first, keep its size, make a new one.

    `places` are the corpora by language, see `extend_command`.
    """
    places = places or {}
    model, size = quote(facts.model), appended(facts)
    corpora = [places.get(lang, f"data/{lang}") for lang in (facts.lang, facts.source) if lang is not None]
    found = []
    unused = facts.vocabulary - facts.used_rows if facts.used_rows is not None else 0
    share = unused * facts.row_parameters / facts.parameters if facts.parameters else 0.0
    trims = unused >= LEAST_UNUSED_ROWS * facts.vocabulary and share >= LEAST_UNUSED_PARAMETERS
    if facts.trimmable and trims:
        why = (
            f"about {unused:,} of {facts.vocabulary:,} tokens, with {share:.0%} of all parameters, are used by none of "
            "this text: without them the model needs less memory and time, and no training. It gets worse at all text "
            "that is not given"
        )
        if facts.source is None:
            why += "; only the target's was counted here, so give --source-text"
        command = f"langadapt trim-vocab {model} {' '.join(corpora)} --out work/trimmed"
        found.append(Advice("trim the vocabulary first", why, command))
    elif size is not None and unused >= UNUSED_A_NEW_TOKEN * size.tokens:
        why = (
            f"about {unused:,} tokens are used by none of this text; if the table must keep its shape (adapters, a "
            "runtime), the new ones can take the places of the least used. Protect every language that should stay"
        )
        command = extend_command(facts, size, places).replace(" --out ", " --mode same-size --out ")
        found.append(Advice("or append in the same size", why, command))
    if _wants_new_tokenizer(facts):
        why = (
            f"only {facts.tokens_in_script:,} tokens are in this script, and there is text for a tokenizer of its own: "
            "as the source language may be lost, compare one"
        )
        shown = f"{NEW_TOKENIZER_SIZE // 1000}k"
        command = f"langadapt train-tokenizer {model} {corpora[0]} --size {shown} --lang {facts.lang} --out work/own"
        found.append(Advice("or make a new tokenizer", why, command))
    return found


def _characters(facts: Facts) -> list[Advice]:
    found = []
    if facts.unspellable:
        shown = show_letters(facts.unspellable)
        if facts.altered:
            why = (
                f"the tokenizer reads {show_letters(facts.altered)} as other letters (it strips accents or "
                "lower-cases), and no new token can bring them back"
            )
            found.append(Advice("do not start from this model", why))
        elif facts.adds_letters and facts.refusal is None:
            why = f"the tokenizer cannot write {shown}; extend-vocab gives each a token before it learns anything else"
            found.append(Advice("add the missing letters first", why, extend_command(facts, best_size(facts))))
        else:
            why = f"the tokenizer cannot write {shown}: they vanish from every text, and extend-vocab cannot repair it"
            found.append(Advice("do not start from this model", why))
    elif facts.hidden_share > LOST_SHARE:
        why = f"{facts.hidden_share:.1%} of the bytes become unknown tokens: the model never sees what they were"
        found.append(Advice("look at what is lost", why))
    if facts.in_pieces:
        why = (
            f"no token of its own for {show_letters(facts.in_pieces)}: written in pieces of a character; the first "
            "merges of extend-vocab make them whole"
        )
        found.append(Advice("letters come first", why))
    return found


def _reason_to_stay(facts: Facts, size: Size | None) -> str | None:
    """Why the vocabulary should stay as it is; None if it should grow."""
    if facts.refusal is not None:
        return f"extend-vocab does not take it: {facts.refusal}"
    if facts.premium is not None and facts.premium < LEAST_PREMIUM:
        return (
            f"the language costs {facts.premium:.2f} times the tokens of the source; under {LEAST_PREMIUM} new tokens "
            "hardly paid in published work"
        )
    if size is None:
        need = SIZES[0] * TEXT_BYTES_PER_NEW_TOKEN
        return f"the text is too small to train new rows: {SIZES[0]} tokens want {need // 1000} kB"
    if size.saving < LEAST_SAVING and not facts.unreadable:
        return (
            f"{size.tokens:,} new tokens would save about {size.saving:.0%} of the tokens; "
            f"under {LEAST_SAVING:.0%} they do not pay"
        )
    return None


def _vocabulary(facts: Facts) -> Advice:
    size = best_size(facts)
    stays = _reason_to_stay(facts, size)
    if stays is not None or size is None:
        return Advice("leave the vocabulary alone", stays or "")
    if facts.unreadable:
        gain = "words with unknown letters are unknown tokens today: the model will see them at all"
        return Advice(f"append {size.tokens:,} tokens", gain, extend_command(facts, size))
    why = [f"saves about {size.saving:.0%} of the tokens: less time for the same text, more text in the context"]
    if facts.premium is not None:
        why.insert(0, f"the language costs {facts.premium:.1f} times the tokens of the source")
    if size.tokens != SIZES[-1]:
        limited = 2 * size.tokens * TEXT_BYTES_PER_NEW_TOKEN > facts.text_bytes
        why.append("the text is too small to train more rows" if limited else "twice as many would save little more")
    if facts.training_tokens is not None and facts.training_tokens < TINY_TRAINING_TOKENS:
        why.append(
            f"with only {facts.training_tokens:,} tokens of training the bits per byte may be better without "
            "(by 0.08 at 97k tokens): compare with a control"
        )
    return Advice(f"append {size.tokens:,} tokens", "; ".join(why), extend_command(facts, size))


def _wants_new_tokenizer(facts: Facts) -> bool:
    few = facts.tokens_in_script is not None and facts.tokens_in_script < FEW_TOKENS_IN_SCRIPT
    dear = facts.premium is None or facts.premium >= NEW_TOKENIZER_PREMIUM
    return few and dear and facts.text_bytes >= NEW_TOKENIZER_BYTES and facts.source is None


def appended(facts: Facts) -> Size | None:
    """The new tokens that are advised; None where the vocabulary should stay as it is."""
    size = best_size(facts)
    return None if _reason_to_stay(facts, size) is not None else size


def extend_command(facts: Facts, size: Size | None, places: Mapping[str, str] | None = None) -> str:
    """The call of extend-vocab; `places` are the corpora by language, data/CODE where they are not given."""
    places = places or {}
    guard = f" --guard {places.get(facts.source, f'data/{facts.source}')}" if facts.source else ""
    number = size.tokens if size is not None else SIZES[0]
    shown = f"{number // 1000}k" if number % 1000 == 0 else str(number)
    corpus = places.get(facts.lang, f"data/{facts.lang}")
    return f"langadapt extend-vocab {quote(facts.model)} {corpus}{guard} --size {shown} --out work/tokenizer"


def advise_worth(facts: Facts) -> Advice:
    """Is the model worth adapting at all, as far as its bits per byte tell?"""
    regime = next(text for limit, text in REGIMES if limit is None or facts.text_bytes < limit)
    if facts.unscored is not None:
        return Advice("not scored", f"{facts.unscored}; text {regime}")
    if facts.bits is None or facts.guessing_bits is None:
        return Advice("not scored", f"how much the model knows of the language was not measured; text {regime}")
    spread = "" if facts.bits_error is None else f" ± {2 * facts.bits_error:.2f}"
    line = f"{facts.bits:.2f}{spread} bits per byte"
    if facts.bits > GUESSING * facts.guessing_bits:
        line += f", guessing a token is {facts.guessing_bits:.2f}"
        why = f"{line}: nothing of the language is there yet, the text has to teach all of it; text {regime}"
        return Advice("a start from nearly nothing", why)
    if facts.ngram_bits is None:
        return Advice("worth adapting", f"{line}, guessing a token is {facts.guessing_bits:.2f}; text {regime}")
    line += f", n-grams of a little of this text {facts.ngram_bits:.2f}"
    if facts.bits > KNOWS * facts.ngram_bits:
        return Advice(
            "worth adapting", f"{line}: there is little of the language in it, and much to gain; text {regime}"
        )
    why = f"{line}: it knows the language, gains may be smaller, in domain and style; text {regime}"
    return Advice("knows it already", why)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model among several: `bits` per byte on the target, and what the budget would buy with it."""

    model: str
    bits: float | None
    passages: tuple[tuple[float, int], ...] = ()
    """Bits and bytes of each passage, the same passages for all candidates."""
    usable: str | None = None
    """Why it cannot be the start; None if it can."""
    seconds_a_pass: float | None = None


def advise_base(candidates: Sequence[Candidate]) -> list[Advice]:
    """Which of several models to start from; empty for one alone."""
    if len(candidates) < 2:
        return []
    able = [item for item in candidates if item.usable is None]
    out = [f"`{item.model}` is out: {item.usable}" for item in candidates if item.usable is not None]
    scored = [item for item in able if item.bits is not None]
    if not able:
        return [Advice("none of them", "; ".join(out))]
    if not scored:
        return [Advice("compare them after a short training", "; ".join([*out, "none was scored"]))]
    best = min(scored, key=lambda item: item.bits or 0.0)
    near = [item for item in scored if item is not best and not _differs(best, item)]
    reasons = [*out]
    first = best
    if near:
        timed = [item for item in [best, *near] if item.seconds_a_pass is not None]
        first = min(timed, key=lambda item: item.seconds_a_pass or 0.0) if timed else best
        names = " and ".join(f"`{item.model}`" for item in [best, *near])
        reasons.append(f"{names} are too close to tell apart ({EQUAL_BITS} bits per byte); the cheaper pass decides")
    elif len(scored) > 1:
        reasons.append(f"fewest bits per byte on the target now ({best.bits:.2f})")
    passes = [
        f"{show_seconds(item.seconds_a_pass)} with `{item.model}`" for item in able if item.seconds_a_pass is not None
    ]
    if len(passes) > 1:
        reasons.append(f"one pass over the text takes {', '.join(passes)}")
    reasons.append(
        "the start alone does not decide: what counts is where each is after the same hours, and what is left of the "
        "source language; train each for a tenth of the budget and evaluate them on the same held-out text"
    )
    return [
        Advice(f"start from {first.model}", "; ".join(reasons), "langadapt evaluate A B --set held-out=data/TARGET")
    ]


def _differs(best: Candidate, other: Candidate) -> bool:
    """Is the difference above the null line and two standard errors of it, passage by passage?"""
    pairs = list(zip(best.passages, other.passages, strict=False))
    if len(pairs) < 2:
        return False
    size = sum(length for (_, length), _ in pairs)
    gap = sum(theirs - ours for (ours, _), (theirs, _) in pairs) / size
    spread = sum((theirs - ours - gap * length) ** 2 for (ours, length), (theirs, _) in pairs)
    error = float((spread * len(pairs) / (len(pairs) - 1)) ** 0.5) / size
    return gap > max(EQUAL_BITS, 2 * error)


def show_letters(letters: Sequence[str], most: int = 12) -> str:
    """`ő ű`, and how many more."""
    rest = len(letters) - most
    return " ".join(letters[:most]) + (f" and {rest} more" if rest > 0 else "")
