"""Which forms of protected words are not worth guarding, though no protected text has them.

A word in lower case may stand capitalised elsewhere, see guard.py. Such a form forbids joins as a seen word does, and
now and then one that the target is full of: ` Oz` once in English text makes `oz` a form, and Hungarian loses the join
of `o` and `z`. A form is let go when a join that only forms forbid is far more frequent in the target than the words
that it comes from are in protected text. Seen words are never let go.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from langadapt.vocab.guard import with_variants
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all

# A join is dear if it is this many times as frequent (a share of the target's joins) as the words whose forms forbid it
# (a share of protected words), and has this share at least. Measured, see docs/vocabulary-measured.md: 30 to 40 forms
# of 90,000 cost 2 % of the target's tokens in a small vocabulary.
TIMES = 200
LEAST_SHARE = 0.0002

Pair = tuple[int, int]


def too_dear(
    base: TokenizerFile, seen: Mapping[str, int], always: Collection[str], target: Mapping[str, int]
) -> frozenset[str]:
    """Forms of `seen` words (with counts) that cost the target too much; none that is itself seen or in `always`.

    All words are in printable form; `base` is a tokenizer with merges.
    """
    known = seen.keys() | set(always)
    weights: Counter[str] = Counter()
    for word, count in seen.items():
        for form in with_variants([word], base.spelling) - known:
            weights[form] += count
    forbidden = {pair for _, ids in _cut(base, known) for pair in itertools.pairwise(ids)}
    forms = {form: set(itertools.pairwise(ids)) - forbidden for form, ids in _cut(base, weights)}
    worth: Counter[Pair] = Counter()
    for form, pairs in forms.items():
        for pair in pairs:
            worth[pair] += weights[form]
    uses: Counter[Pair] = Counter()
    total = 0
    for word, ids in _cut(base, target):
        for pair in itertools.pairwise(ids):
            total += target[word]
            if pair in worth:
                uses[pair] += target[word]
    protected = sum(seen.values())
    dear = {
        pair
        for pair, count in uses.items()
        if count >= LEAST_SHARE * total and count * protected >= TIMES * worth[pair] * total
    }
    return frozenset(form for form, pairs in forms.items() if not dear.isdisjoint(pairs))


def _cut(base: TokenizerFile, words: Collection[str]) -> Iterator[tuple[str, list[int]]]:
    """Each word and its ids, sorted."""
    ordered = sorted(words)
    return zip(ordered, encode_all(base.model_stage(), ordered), strict=True)
