"""WordPiece (BERT, DistilBERT, ELECTRA): longest match first, extended by pieces that no guarded word ever meets.

The model reads a word from left to right and takes the longest piece that fits, `##x` inside a word. A new piece has
no rank to hide behind: where it fits and is longer than what was taken, it is taken. But where it is not, nothing
changes, and that is the guard:

    A guarded word is cut at positions b1 = 0, b2, ... At each of them the model compares the rest of the word with
    its vocabulary. A new piece that begins the rest of the word at some bi, and is longer than the old piece there,
    changes the word. If there is no such piece for any bi, the first old piece is taken as before, so the model comes
    to b2 as before, and so on to the end: the word keeps exactly its ids, whatever else was added.

So the condition is exact, holds for each piece by itself, and needs no search. Pieces that break it are never proposed.

Characters that the vocabulary lacks make a whole word unknown. They are added first, at the beginning of a word and
inside (`##x`), each form if the text has it. One character is never longer than an old piece: no guarded word changes.

The converse danger: a longer match may leave a rest that no piece fits, and a word that could be read becomes unknown.
It takes a character that stands in longer pieces only (letters.py); pieces that do this to a word of the text are
dropped. The check `still_spelled` looks at all words.

What lower-casing, stripped accents and the limit of characters in a word (`max_input_chars_per_word`) take away is not
given back: words are counted as the base's own normaliser leaves them.
"""

import bisect
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.model.spelling import family_of, marks_spaces
from langadapt.vocab.choosing import Candidate, SetFamily
from langadapt.vocab.family import Refusal, Wish
from langadapt.vocab.guard import Guard
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all


@method(cite="Wu et al. 2016; Devlin et al. 2019; extended with a guard")
def wordpiece(base: TokenizerFile, options: Options) -> "WordPiece | Refusal":
    """The family object if `base` is WordPiece."""
    kind = family_of(base.spec)
    if kind != "wordpiece":
        return Refusal(f"its model is {kind}")
    if not base.model.get("continuing_subword_prefix"):
        return Refusal("its WordPiece model does not mark pieces inside words", near=True)
    if base.unknown is None:
        return Refusal("its WordPiece model has no token for what is unknown", near=True)
    if marks_spaces(base.spec):
        return Refusal("its WordPiece model has pieces with spaces", near=True)
    return WordPiece(base)


class WordPiece(SetFamily):
    """A WordPiece tokenizer that can be extended."""

    name = "wordpiece"

    def __init__(self, base: TokenizerFile) -> None:
        super().__init__(base)
        self._longest = int(base.model.get("max_input_chars_per_word", 100))

    def letters(self, words: Mapping[str, int], wish: Wish) -> list[Candidate]:
        """Characters of which neither form is there, in the forms that the text has; and missing forms of others."""
        counts: Counter[str] = Counter()
        for word, count in words.items():
            if len(word) <= self._longest:
                counts[word[0]] += count
                for letter in word[1:]:
                    counts[self._mark + letter] += count
        found = [
            (counts[piece], piece)
            for piece in counts
            if piece not in self._base.vocab and self._both(counts, piece) >= wish.min_count
        ]
        return [Candidate(piece, count, letter=True) for count, piece in sorted(found, key=lambda it: (-it[0], it[1]))]

    def _both(self, counts: Mapping[str, int], piece: str) -> int:
        letter = piece[-1]
        return counts.get(letter, 0) + counts.get(self._mark + letter, 0)

    def permits(self, guard: Guard) -> Callable[[str], bool]:
        """No rest of a guarded word, at a place where it is cut, begins with the piece and has a shorter one now."""
        rests: dict[str, int] = {}
        pieces = {number: piece for piece, number in self._base.vocab.items()}
        for word, ids in zip(guard.words, encode_all(self._base.model_stage(), guard.words), strict=True):
            start = 0
            for number in ids:
                taken = len(pieces[number])
                rests[word[start:] if start == 0 else self._mark + word[start:]] = taken
                start += taken if start == 0 else taken - len(self._mark)
        ordered = sorted(rests)

        def permitted(piece: str) -> bool:
            at = bisect.bisect_left(ordered, piece)
            while at < len(ordered) and ordered[at].startswith(piece):
                if rests[ordered[at]] < len(piece):
                    return False
                at += 1
            return True

        return permitted

    def harmless(self, there: Sequence[Candidate], fresh: Sequence[Candidate], guard: Guard) -> list[Candidate]:
        """All of them: `permits` has asked already, and characters cannot be longer than what was taken."""
        return list(fresh)

    def checks(self, new: TokenizerFile, words: Mapping[str, int]) -> list[Outcome]:
        """Each new piece is taken for its own text."""
        return [self._reachable(new)]

    def _reachable(self, new: TokenizerFile) -> Outcome:
        """The text of a new piece, at the beginning of a word or inside one, is taken whole and within the limit."""
        stages = {False: new.model_stage(), True: inside_stage(new)}
        broken, fresh = (
            [],
            sorted((number, piece) for piece, number in new.pieces.items() if piece not in self._base.pieces),
        )
        for number, piece in fresh:
            inside = self._spelling.word_starts[0] != self.content(piece)[:1]
            text = piece[len(self._mark) :] if inside else piece
            ids = stages[inside].encode(text, add_special_tokens=False).ids
            if ids != [number] or len(text) + inside > self._longest:
                broken.append(f"`{piece}` gives {ids}")
        return Outcome("reachable", len(fresh), tuple(broken))


def inside_stage(file: TokenizerFile) -> Tokenizer:
    """The model as it acts inside a word: pieces with the mark only, and the mark taken off."""
    mark = file.model["continuing_subword_prefix"]
    vocab = {piece[len(mark) :]: id for piece, id in file.vocab.items() if piece.startswith(mark) and piece != mark}
    model = file.model | {"vocab": vocab | {file.model["unk_token"]: file.unknown}, "continuing_subword_prefix": ""}
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
