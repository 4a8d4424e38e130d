"""Tokenizer families: one file each, marked with `@method`; this file finds the one that fits a tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from langadapt.core import registry
from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.types import NewToken
from langadapt.vocab.guard import Guard
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile

if TYPE_CHECKING:
    from langadapt.vocab.curve import Curve, Why
    from langadapt.vocab.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the new tokens should be like.

    `never` are bytes that no new token may stand for; with `scripts` every new token holds a letter of one of them, see
    scripts.py. BPE only: with `curve` what each token saves is kept, and 1,000 more are learned for it; with `auto` the
    size is chosen where more tokens save too little, see curve.py, and `size` is the most that it may be.
    """

    size: int
    min_count: int = 10
    max_token_bytes: int = 32
    split_digits: Literal["auto", "yes", "no"] = "auto"
    never: frozenset[bytes] = frozenset()
    scripts: frozenset[str] = frozenset()
    curve: bool = False
    auto: bool = False


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a family learned: `merges[i]` makes `tokens[i]`; `learned[i]` is how often that pair stood there then.

    A character that the vocabulary lacked, or any token of a family without merges, is one without a right half.

    `stepping_stones` are ids that the text ends with fewer than `min_count` times, kept because others are built
    of them. `notes` are counts of what was left out, by reason; `asked` is the size that was asked for or chosen, and
    `why` says what an automatic choice stopped at. `curve` is there for families that merge.
    """

    merges: tuple[Merge, ...]
    tokens: tuple[NewToken, ...]
    learned: tuple[int, ...]
    stepping_stones: frozenset[int]
    notes: Mapping[str, int]
    curve: "Curve | None" = None
    why: "Why | None" = None


class Family(Protocol):
    """One kind of tokenizer model: knows how to grow its vocabulary and what a piece stands for."""

    name: str

    def content(self, piece: str) -> bytes:
        """Bytes that a piece stands for."""

    def grow(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        """New tokens for words with counts, none of which changes a guarded word."""

    def checks(self, new: TokenizerFile, words: Mapping[str, int]) -> "list[Outcome]":
        """What must hold for this kind of model in the written file; one outcome is `reachable`."""


@dataclass(frozen=True)
class Refusal:
    """Why a family does not take a tokenizer; `near` if it is of this family but for one property."""

    why: str
    near: bool = False


def detect(base: TokenizerFile) -> Family:
    """The family of a tokenizer; DataError says what it is and what is supported."""
    names = registry.method_names("vocab")
    refusals: list[Refusal] = []
    for name in names:
        method = registry.load_method("vocab", name)
        answer = method(base, method.options())
        if not isinstance(answer, Refusal):
            family: Family = answer
            return family
        refusals.append(answer)
    raise DataError(
        f"this tokenizer cannot be extended: {_reason(refusals)}",
        where=base.place,
        hint=f"supported families: {', '.join(names)} (GPT-2, Llama 3, Qwen, SmolLM; Gemma, Llama 2, Mistral; "
        "XLM-R, T5; BERT); `langadapt cpt` trains a model with the vocabulary that it has",
    )


def _reason(refusals: Sequence[Refusal]) -> str:
    near = [refusal.why for refusal in refusals if refusal.near]
    return "; ".join(dict.fromkeys(near or [refusal.why for refusal in refusals]))
