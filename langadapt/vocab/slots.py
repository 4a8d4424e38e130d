"""Ids that new tokens may take over, so that a table keeps its shape; and growing a vocabulary into them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.vocab.family import Family, Growth, Wish, detect
from langadapt.vocab.growing import BpeFamily
from langadapt.vocab.guard import Guard
from langadapt.vocab.token_line import line_of
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.wordpiece import inside_stage


@dataclass(frozen=True)
class Slot:
    """An id to take over. `piece` is the token that has it now, None for a hole or a spare row of the table.

    `uses` is about how often the target text needs that token.
    """

    id: int
    piece: str | None = None
    uses: int = 0


@dataclass(frozen=True)
class Grown:
    """`start` is the base without the tokens of `taken`; `growth` goes on from there."""

    start: TokenizerFile
    family: Family
    growth: Growth
    taken: tuple[Slot, ...] = ()

    @property
    def gone(self) -> dict[int, str]:
        """Tokens that were given up, by id."""
        return {slot.id: slot.piece for slot in self.taken if slot.piece is not None}


def grow_into(
    base: TokenizerFile,
    slots: Sequence[Slot] | None,
    words: Mapping[str, int],
    guard: Guard,
    wish: Wish,
    progress: Progress,
) -> Grown:
    """Learn new tokens that get the ids of `slots`, first come first; None appends them after the largest id.

    A token is given up only if another one takes its id. When the text gives fewer than there are slots, it is all
    learned again with fewer given up, because giving up a token changes how text is cut.
    """
    family = detect(base)
    if slots is None:
        return Grown(base, family, family.grow(words, guard, wish, progress))
    taken = tuple(slots[: wish.size])
    while True:
        pieces = {slot.piece for slot in taken if slot.piece is not None}
        start = base.without(pieces)
        family = detect(start)
        never = frozenset(family.content(piece) for piece in pieces if piece not in base.added)
        growth = family.grow(words, guard, replace(wish, size=len(taken), never=never), progress)
        if len(growth.tokens) in (0, len(taken)):
            return Grown(start, family, _placed(growth, [slot.id for slot in taken]), taken)
        taken = taken[: len(growth.tokens)]


def _placed(growth: Growth, ids: Sequence[int]) -> Growth:
    """The same growth with these ids, in order: what is learned does not depend on them."""
    if not growth.tokens:
        return growth
    places = {token.id: number for token, number in zip(growth.tokens, ids, strict=True)}
    return replace(
        growth,
        merges=tuple(replace(merge, id=places[merge.id]) for merge in growth.merges),
        tokens=tuple(replace(token, id=places[token.id]) for token in growth.tokens),
        stepping_stones=frozenset(places[number] for number in growth.stepping_stones),
    )


def insist_on_nested(family: Family) -> None:
    """DataError for size `auto` in a family without merges: its n+1 best tokens need not hold the n best ones."""
    if not isinstance(family, BpeFamily):
        raise DataError(
            f"size `auto` works in BPE tokenizers only, and this is {family.name}",
            hint="leave out `--size auto`: give a size, such as `--size 4k`, and compare two or three",
        )


def splits(base: TokenizerFile, new: TokenizerFile, pieces: Sequence[str]) -> dict[str, list[str]]:
    """What `new` cuts each text into that was one token of `base`; for an added token, its string."""
    names = {number: piece for piece, number in new.pieces.items()}
    inside = getattr(new.spelling, "mark", "")
    found: dict[str, list[str]] = {}
    for marked in (False, True):
        here = [piece for piece in pieces if marked == bool(inside and piece[:-1].startswith(inside))]
        if here:
            stage = inside_stage(new) if marked else new.model_stage()
            texts = [_text_of(base, piece)[len(inside) if marked else 0 :] for piece in here]
            cut = [[names[number] for number in ids] for ids in encode_all(stage, texts)]
            found |= zip(here, cut, strict=True)
    return found


def _text_of(base: TokenizerFile, piece: str) -> str:
    """What the model is given for the text of a token; an added one stands at the beginning of a word."""
    if piece not in base.added:
        return piece
    return base.spelling.piece((piece if b"" in base.spelling.word_starts else f" {piece}").encode())


def map_lines(
    grown: Grown,
    mode: str,
    *,
    vocabulary_before: int,
    old_rows: int,
    vocabulary_after: int,
    old_splits: Mapping[str, Sequence[str]],
) -> list[dict[str, object]]:
    """The lines of vocab_map.jsonl: a header, then one for each new token.

    `count` is how often the text ends with the token, `learned_count` how often its two parts stood side by side
    when it was made; a stepping stone has few of the one and many of the other. Where a token took over the id of
    another, `old_piece` is that one, and `old_splits` what its text is cut into now (by `old_splits`).
    """
    growth, gone = grown.growth, grown.gone
    header: dict[str, object] = {
        "old_rows": old_rows,
        "vocabulary_before": vocabulary_before,
        "vocabulary_after": vocabulary_after,
        "family": grown.family.name,
    }
    if mode != "append":
        header["mode"] = mode
    lines: list[dict[str, object]] = []
    for token, merge, learned in zip(growth.tokens, growth.merges, growth.learned, strict=True):
        parts = [merge.left, merge.right] if merge.right else [merge.left]
        line = line_of(token) | {"parts": parts, "learned_count": learned}
        if token.id in gone:
            line |= {"old_piece": gone[token.id], "old_splits": old_splits[gone[token.id]]}
        lines.append(line)
    return [header, *lines]
