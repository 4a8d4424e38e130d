"""The `.model` that belongs to a changed tokenizer.json: same pieces in the order of the ids, same types and scores.

An id of tokenizer.json and a place in the `.model` are not the same number for every model. Classes of transformers
put special tokens around the pieces: XLM-R counts `<s> <pad> </s> <unk>` where the file has `<unk> <s> </s>`, so each
later piece has its place plus one, and `<mask>` comes behind. The rule (`Places`) is read off the base and kept. New
tokens have ids behind those added tokens, so their place would not follow from the rule: the `.model` gets a control
piece with the name of each added token, or of each hole, that lies between. No text ever gives a control piece.

New scores: Unigram has them in tokenizer.json. In BPE only their order counts. It is the order in which tokenizer.json
merges to the new pieces, each 1 below the one before, from the lowest old score: 0, or any score between the old ones,
would let a new piece take precedence over an old one.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from langadapt.core.errors import DataError
from langadapt.model.spm_model import CONTROL, NORMAL, Piece, SpmModel
from langadapt.vocab.tokenizer_file import TokenizerFile


@dataclass(frozen=True)
class Places:
    """How ids and places go together: the first `head` places by name, from there id = place + `shift`."""

    head: int
    shift: int

    @classmethod
    def of(cls, spm: SpmModel, file: TokenizerFile) -> "Places":
        """Read the rule off a pair of files. DataError if there is none, or a piece has no id."""
        lacking = [piece.text for piece in spm.pieces if piece.text not in file.pieces]
        if lacking:
            raise DataError(f"tokenizer.json lacks {len(lacking):,} of its pieces, such as {lacking[0]!r:.80}")
        shifts = [file.pieces[piece.text] - place for place, piece in enumerate(spm.pieces)]
        head = next((place for place in range(len(shifts), 0, -1) if shifts[place - 1] != shifts[-1]), 0)
        ordinary = [piece.text for piece in spm.pieces[:head] if piece.type == NORMAL]
        outside = file.vocab.keys() - file.added.keys() - spm.places.keys()
        if ordinary:
            raise DataError(f"its ids do not follow tokenizer.json's: {ordinary[0]!r:.80} has another one")
        if outside:
            raise DataError(f"it lacks {len(outside):,} pieces of tokenizer.json, such as {min(outside)!r:.80}")
        return cls(head, shifts[-1])


def rewritten(spm: SpmModel, places: Places, new: TokenizerFile) -> SpmModel:
    """`spm`, the base's, with the pieces of `new`: old ones as they are, new ones behind them or in ids they took."""
    by_id = {number: piece for piece, number in new.pieces.items()}
    body = {number for piece, number in new.pieces.items() if piece not in new.added or piece in spm.places}
    scores = new_scores(spm, new)
    pieces = list(spm.pieces[: places.head])
    for number in range(places.head + places.shift, max(body) + 1):
        text = by_id.get(number, f"<no_token_{number}>")
        if text in spm.places:
            pieces.append(spm.pieces[spm.places[text]])
        elif number in body:
            pieces.append(Piece(text, scores[text]))
        else:
            pieces.append(Piece(text, 0.0, CONTROL))
    return spm.replaced(pieces)


def new_scores(spm: SpmModel, new: TokenizerFile) -> Mapping[str, float]:
    """Scores of the pieces of `new` that `spm` does not have."""
    fresh = [piece for piece in new.vocab if piece not in spm.places and piece not in new.added]
    if spm.kind == "unigram":
        return {piece: float(score) for piece, score in new.model["vocab"] if piece not in spm.places}
    return {piece: float(np.float32(spm.lowest - 1 - at)) for at, piece in enumerate(_in_order(new, set(fresh)))}


def _in_order(new: TokenizerFile, fresh: Set[str]) -> list[str]:
    """New pieces as tokenizer.json merges to them; behind them those that no merge makes (characters), by id."""
    merged = dict.fromkeys(left + right for left, right in new.merges if left + right in fresh)
    return [*merged, *sorted(fresh - merged.keys(), key=new.vocab.__getitem__)]


def by_score(spm: SpmModel) -> dict[str, int]:
    """Ordinary pieces -> their rank, best score first; equal scores in the order of the file."""
    ordinary = [piece for piece in spm.pieces if piece.type == NORMAL]
    ordered = sorted(ordinary, key=lambda piece: -piece.score)
    return {piece.text: rank for rank, piece in enumerate(ordered)}
