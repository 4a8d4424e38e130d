"""Which pieces of a vocabulary without merges can go (WordPiece, Unigram): the least used first, by counting again.

A piece of these families is built of no other, so any may go that no text needs. Why a word keeps exactly its ids when
pieces go that its segmentation does not hold:

    WordPiece. At each place where the word is cut, the model takes the longest piece that fits. It took one that
    stays, and of fewer pieces that one is still the longest. So the model comes to the same next place, and so on to
    the end. (A word that became `[UNK]` has no segmentation, and nothing is promised of it.)

    Unigram. The model goes through the word and keeps for each place the best sum of scores of the ways to it, of
    equally good ones the first that it meets. With fewer pieces no place has a better sum than before, in floating
    point either, because rounding keeps the order of sums. The best way's own pieces are there, so each place on it
    has the sum that it had; a way that was worse, or as good but met later, is no better now and met no earlier. So the
    choice at each of these places is the one before. The cost of what is unknown must not move: it is the lowest score
    less 10, so one piece with the lowest score stays.

Why no text becomes unknown: every character that has a piece of its own keeps it (WordPiece: at the beginning of a word
and inside, each for itself). A text of such characters is never unknown, whatever else goes. Characters that stand in
longer pieces only are rare in files that people trained; pieces with one stay, and the target's words are cut again:
if one became unknown all the same, its pieces stay too.

What goes is used for nothing, or little: what is cut anew instead uses other pieces more, and some less. So uses are
counted again after each round, and rounds begin with what is not used at all.
"""

from collections.abc import Collection, Mapping

from langadapt.model.spelling import SPACE_MARK, byte_piece
from langadapt.vocab.guard import Guard
from langadapt.vocab.letters import became_unknown, letters_of
from langadapt.vocab.slots import Slot
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.uses import uses_on


def always_stay(base: TokenizerFile) -> dict[int, str]:
    """Tokens that no count decides about -> why: `special`, `byte`, `character`, `lowest score`.

    Among the characters are pieces with one that has no piece of its own, and pieces with a space inside: the library's
    decoder takes all spaces out of the first piece of a text, so these are not what their characters are.
    """
    why = dict.fromkeys(base.added.values(), "special")
    if base.unknown is not None:
        why.setdefault(base.unknown, "special")
    vocab = base.vocab
    lone = {byte_piece(byte) for byte in range(256)} if base.model.get("byte_fallback") else set()
    for piece, id in vocab.items():
        if piece in lone:
            why.setdefault(id, "byte")
            continue
        letters = letters_of(base, piece)
        if len(letters) == 1 or SPACE_MARK in piece[1:] or not all(letter in vocab for letter in letters):
            why.setdefault(id, "character")
    if isinstance(base.model["vocab"], list):
        scores = base.model["vocab"]
        lowest = [id for piece, id in vocab.items() if piece not in base.added and scores[id][1] == base.lowest_score]
        if not any(id in why for id in lowest):
            why[min(lowest)] = "lowest score"
    return why


def rarest(
    base: TokenizerFile,
    words: Mapping[str, int],
    stay: Collection[int],
    *,
    below: int,
    most: int | None = None,
    least: int = 0,
) -> list[Slot]:
    """Tokens to give up, the least used on the words first, of equally used ones the highest id; at most `most`.

    Those that the words need `below` times or more stay, unless fewer than `least` go otherwise. Each round takes
    those under a limit that doubles, because what goes leaves its uses to others.
    """
    pieces = {id: piece for piece, id in base.vocab.items() if id not in stay}
    most = len(pieces) if most is None else most
    going: list[Slot] = []
    limit, uses, enough = 1, uses_on(base, words), False
    while len(going) < most and pieces:
        under = sorted((uses[id], -id) for id in pieces if uses[id] < limit)[: most - len(going)]
        going += [Slot(-id, pieces.pop(-id), count) for count, id in under]
        if not under and limit == below:
            enough, most = True, min(most, least)
        if any(count for count, _ in under):
            # what is not used at all changes no count when it goes
            uses = uses_on(base.without({slot.piece for slot in going if slot.piece is not None}), words)
        limit = 2 * limit if enough else min(2 * limit, below)
    return going


def freeable(
    base: TokenizerFile, guard: Guard, words: Mapping[str, int], *, size: int, below: int, named: Collection[int]
) -> list[Slot]:
    """Up to `size` tokens to give up, in order; for what stays see above, `named` are ids that config files name."""
    stay = {*always_stay(base), *named, *uses_on(base, dict.fromkeys(guard.words, 1))}
    while True:
        going = rarest(base, words, stay, below=below, most=size)
        fewer = base.without({slot.piece for slot in going if slot.piece is not None})
        lost = became_unknown(base, fewer.model_stage(), base.unknown, words)
        if not lost:
            return going
        stay.update(id for ids in encode_all(base.model_stage(), lost) for id in ids)
