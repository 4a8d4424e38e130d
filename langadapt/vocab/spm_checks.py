"""Do a SentencePiece `.model` and a tokenizer.json say the same? Asked of the base, and of what was written.

What is compared, without any tolerance:

- **pieces**: each piece of the model in tokenizer.json stands in the `.model` at the place that its id gives (see
  `Places`), with its old score and type if it is old; new ones are ordinary pieces with a score;
- **cuts**: ids of text. BPE: all of what the normaliser and pre-tokenizer of tokenizer.json make of a text, between its
  added tokens. Unigram: the words of such a text, up to LONGEST characters, because SentencePiece adds up scores of a
  whole sentence in 32 bits and the tokenizers library in 64, so that on long text the two may choose differently
  between cuts that are all but equal, in any tokenizer of this kind. The `.model` is given the same strings, so its
  own normaliser does not run: it is copied byte for byte.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from langadapt.core.errors import DataError
from langadapt.model.spelling import family_of
from langadapt.model.spm_model import BYTE, CONTROL, NORMAL, UNUSED, SpmModel
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.splits import splits
from langadapt.vocab.spm_file import Places
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.words import WordCounter

# Characters of a word.
LONGEST = 1000


def differences(spm: SpmModel, base: TokenizerFile, texts: Sequence[str]) -> list[str]:
    """How a base's two files disagree, for people; none: []. DataError: the library cannot use the `.model`."""
    family = {"bpe": "byte-fallback-bpe", "unigram": "unigram"}[spm.kind]
    if family_of(base.spec) != family:
        return [f"it is {spm.kind}, tokenizer.json {family_of(base.spec)}"]
    odd = [piece.text for piece in spm.pieces if piece.type == UNUSED]
    if odd:
        return [f"it has {len(odd):,} unused pieces, such as `{odd[0]}`, which tokenizer.json cannot say"]
    try:
        places = Places.of(spm, base)
    except DataError as error:
        return [error.message]
    if bool(base.model.get("byte_fallback")) != any(piece.type == BYTE for piece in spm.pieces):
        return ["one of the two falls back to bytes and the other does not"]
    found = list(_scores(spm, base) if spm.kind == "unigram" else _merges(spm, base))
    outcome = cuts(spm, base, texts)
    if outcome.broken:
        found.append(f"{len(outcome.broken):,} of {outcome.examined:,} texts have other ids, e.g. {outcome.broken[0]}")
    if places.shift < 0:
        found.append("ids of tokenizer.json are below the places")
    return found


def _scores(spm: SpmModel, file: TokenizerFile) -> Iterable[str]:
    """Scores of ordinary pieces as 32 bits hold them."""
    scores = dict(file.model["vocab"])
    other = [one.text for one in spm.pieces if one.type == NORMAL and np.float32(scores[one.text]) != one.score]
    if other:
        yield f"{len(other):,} pieces have other scores, such as `{other[0]}`"


def _merges(spm: SpmModel, file: TokenizerFile) -> Iterable[str]:
    """tokenizer.json must merge all that the scores imply, in their order."""
    rank = {piece.text: -piece.score for piece in spm.pieces if piece.type == NORMAL}
    wanted = {pair for piece in rank for pair in splits(piece, rank)}
    there = [pair for pair in file.merges if pair[0] in rank and pair[1] in rank and pair[0] + pair[1] in rank]
    lacking = wanted - set(there)
    if lacking:
        yield f"tokenizer.json lacks {len(lacking):,} of the merges that it implies, such as {min(lacking)}"
    order = [rank[left + right] for left, right in there]
    late = next((place for place in range(1, len(order)) if order[place] < order[place - 1]), None)
    if late is not None:
        yield f"its scores have another order than the merges of tokenizer.json: {there[late]} comes too late"


def pieces(old: SpmModel, places: Places, new: TokenizerFile, written: SpmModel) -> Outcome:
    """The `.model` has the pieces of tokenizer.json in the places of their ids, old ones unchanged, with new scores."""
    broken = []
    by_place = dict(enumerate(written.pieces))
    for text, number in sorted(new.vocab.items(), key=lambda item: item[1]):
        place = written.places.get(text)
        if place is None:
            if text not in new.added:
                broken.append(f"`{text}` is missing")
        elif place >= places.head and place + places.shift != number:
            broken.append(f"`{text}` is at place {place}, its id is {number}")
    for place, piece in by_place.items():
        before = old.pieces[old.places[piece.text]] if piece.text in old.places else None
        if before is not None and before != piece:
            broken.append(f"`{piece.text}` was {before}, is {piece}")
        if before is None and piece.type not in (NORMAL, CONTROL):
            broken.append(f"`{piece.text}` has type {piece.type}")
        if piece.type != CONTROL and piece.text not in new.pieces:
            broken.append(f"`{piece.text}` at place {place} is not in tokenizer.json")
        if piece.type == CONTROL and piece.text in new.vocab and piece.text not in new.added:
            broken.append(f"`{piece.text}` is a control piece")
    if written.proto.trainer_spec.vocab_size != len(written.pieces):
        broken.append(f"{len(written.pieces)} pieces, but `vocab_size` says {written.proto.trainer_spec.vocab_size}")
    if written.proto.normalizer_spec != old.proto.normalizer_spec:
        broken.append("the normaliser changed")
    broken += _unigram_scores(old, new, written) if old.kind == "unigram" else _bpe_scores(old, new, written)
    return Outcome("sentencepiece_pieces", len(written.pieces), tuple(broken))


def _unigram_scores(old: SpmModel, new: TokenizerFile, written: SpmModel) -> list[str]:
    """The scores of tokenizer.json, none below the old minimum (unknown characters cost that less 10)."""
    broken = list(_scores_of_new(old, new, written))
    if written.lowest < old.lowest:
        broken.append(f"the lowest score was {old.lowest}, is {written.lowest}")
    return broken


def _scores_of_new(old: SpmModel, new: TokenizerFile, written: SpmModel) -> Iterable[str]:
    scores = dict(new.model["vocab"])
    for piece in written.pieces:
        if piece.type == NORMAL and np.float32(scores.get(piece.text, 1.0)) != piece.score:
            yield f"`{piece.text}` has score {piece.score}, in tokenizer.json {scores.get(piece.text)}"


def _bpe_scores(old: SpmModel, new: TokenizerFile, written: SpmModel) -> list[str]:
    """All new ones below all old ones, falling in the order of the merges of tokenizer.json."""
    scores = {piece.text: piece.score for piece in written.pieces if piece.type == NORMAL}
    fresh = {text: score for text, score in scores.items() if text not in old.places}
    broken = [f"`{text}` has score {score}, not below {old.lowest}" for text, score in fresh.items()
              if score >= old.lowest]  # fmt: skip
    if len(set(fresh.values())) != len(fresh):
        broken.append("two new pieces have the same score")
    return broken + list(_merges(written, new))


def cuts(spm: SpmModel, file: TokenizerFile, texts: Iterable[str]) -> Outcome:
    """Both give the same ids for all of these texts (see above for what is given to them)."""
    parts = sorted(set(_parts(spm, file, texts)))
    theirs = spm.without_normaliser().cuts(parts)
    ids = [file.pieces.get(piece.text, -1) for piece in spm.pieces]
    broken = tuple(
        f"`{part[:60]}`: {[ids[place] for place in found][:20]}, in tokenizer.json {own[:20]}"
        for part, own, found in zip(parts, encode_all(file.model_stage(), parts), theirs, strict=True)
        if own != [ids[place] for place in found]
    )
    return Outcome("sentencepiece_cuts", len(parts), broken)


def _parts(spm: SpmModel, file: TokenizerFile, texts: Iterable[str]) -> Iterable[str]:
    counter = WordCounter(file, whole=spm.kind == "bpe")
    for text in texts:
        for part in counter.words(text):
            if spm.kind == "bpe" or len(part) <= LONGEST:
                yield part


def merges_kept(base: "TokenizerFile", new: "TokenizerFile") -> Outcome:
    """Old merges in their order; all others make a new piece, or an old one of a new piece; no split is missing."""
    old = base.merges
    there = set(old)
    ranks = base.ranks or {}
    broken = []
    rest = [pair for pair in new.merges if pair in there]
    if rest != old:
        broken.append(f"{len(rest)} of {len(old)} old merges are there in their order")
    fresh = new.vocab.keys() - base.pieces.keys()
    known = ranks.keys() | fresh
    wanted = {pair for piece in fresh for pair in splits(piece, known)}
    wanted |= {pair for piece in ranks for pair in splits(piece, known) if fresh.intersection(pair)}
    more = set(new.merges) - there
    broken += [f"{pair} is missing" for pair in sorted(wanted - more)]
    broken += [f"{pair} makes nothing new" for pair in sorted(more - wanted)]
    made = {left + right for left, right in more}
    broken += [f"`{piece}` has no merge" for piece in sorted(fresh) if len(piece) > 1 and piece not in made]
    last = max((place for place, pair in enumerate(new.merges) if pair in there), default=-1)
    first = min((place for place, pair in enumerate(new.merges) if pair[0] + pair[1] in fresh), default=len(new.merges))
    if first < last:
        broken.append(f"the merge at rank {first} makes a new piece before an old merge at rank {last}")
    return Outcome("merges_kept", len(new.merges), tuple(broken))
