"""Which tokens can go without changing protected text, the least used first; of a BPE vocabulary: unused leaves.

For WordPiece and Unigram see least_used.py; this is about BPE.

A *leaf* is a token that no merge builds on. Giving it up means deleting the merges that make it.

Why guarded words keep exactly their ids: let t be a leaf, and w a word whose segmentation does not hold t. Had t been
made anywhere while w was cut, nothing could have consumed it (t is a leaf), so it would be in the result: the merges
that make t were never applied to w. The model applies the first applicable merge in rank order; deleting a merge that
is never the one applied changes no choice, so w is cut as before. By induction this holds for token after token, also
for one that became a leaf because its last child was given up. With `ignore_merges` a word that is a token itself has
that token as its segmentation, so it is covered. Then new merges are appended, which the guard keeps away from w.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping

from langadapt.model.spelling import byte_piece
from langadapt.vocab import least_used
from langadapt.vocab.guard import Guard
from langadapt.vocab.scripts import shown_script
from langadapt.vocab.slots import Slot
from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.uses import uses_on


def freeable(
    base: TokenizerFile, guard: Guard, words: Mapping[str, int], *, size: int, below: int, named: frozenset[int]
) -> list[Slot]:
    """Up to `size` tokens to give up, in order: the least used on the target's words first, then the highest id.

    Never: tokens in the segmentation of a guarded word, added ones, ids in `named`, the unknown token, single bytes and
    single characters, and tokens that the target's words need `below` times or more. What is given up falls to its two
    parts, so their use grows by its own (frequency of leaves: Purason et al. 2025).
    """
    if "merges" not in base.model:
        return least_used.freeable(base, guard, words, size=size, below=below, named=named)
    vocabulary: dict[str, int] = base.model["vocab"]
    kept = set(base.added.values()) | named | set(uses_on(base, dict.fromkeys(guard.words, 1)))
    whole = {base.model.get("unk_token"), *(byte_piece(byte) for byte in range(256))}
    uses = uses_on(base, words)
    makers: dict[str, list[tuple[str, str]]] = {}
    builders: Counter[str] = Counter()
    for left, right in base.merges:
        makers.setdefault(left + right, []).append((left, right))
        builders.update({left, right})

    def may_go(piece: str) -> bool:
        return vocabulary[piece] not in kept and piece not in whole and not _is_one(base.spelling.content(piece))

    heap = [(uses[number], -number, piece) for piece, number in vocabulary.items() if not builders[piece]]
    heap = [entry for entry in heap if may_go(entry[2])]
    heapq.heapify(heap)
    freed: list[Slot] = []
    while heap and len(freed) < size:
        count, number, piece = heapq.heappop(heap)
        if count != uses[-number]:
            heapq.heappush(heap, (uses[-number], number, piece))
            continue
        if count >= below:
            break
        freed.append(Slot(-number, piece, count))
        for rank, parts in enumerate(makers.get(piece, ())):
            for part in set(parts):
                builders[part] -= 1
                if not builders[part] and may_go(part):
                    heapq.heappush(heap, (uses[vocabulary[part]], -vocabulary[part], part))
            for part in parts if rank == 0 else ():
                uses[vocabulary[part]] += count
    return freed


def _is_one(content: bytes) -> bool:
    """One byte, or one character: what others are spelled with when they go."""
    return len(content) == 1 or len(content.decode("utf-8", "replace")) == 1


def by_script(base: TokenizerFile, pieces: Iterable[str]) -> dict[str, int]:
    """How many of these tokens are of each script, most first: who pays."""
    counts = Counter(shown_script(base.spelling.content(piece)) for piece in pieces if piece not in base.added)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
