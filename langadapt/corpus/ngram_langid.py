"""A small language classifier made from the user's own seed text, for languages that no detector knows.

Multinomial naive Bayes over hashed character n-grams (as in langid.py, Lui and Baldwin 2012), a pure function of the
seeds; fastText's supervised trainer gave NaN on small data, and other vectors with other threads. It can only choose
among the languages it was given, so the neighbours that the text may really hold have to be among them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langadapt.core.errors import DataError
from langadapt.core.languages import primary
from langadapt.corpus.langid import WINDOW, Judge, Verdict
from langadapt.corpus.neardup import mix64

# 1 to 4 letters: 5 gained nothing on 20 languages with 10 kB of seed each and doubled the table.
LONGEST = 4
BUCKETS = 1 << 16
# Seen nowhere in the seeds: half a count, as usual for sparse counts.
SMOOTHING = 0.5
# N-grams of one text are far from independent: the evidence of a whole window counts as that of this many of them.
# With 30 the mean probability of right and of wrong verdicts on held-out lines is about how often they are right.
EVIDENCE = 30.0
LEAST_SEED_CHARACTERS = 2000
MOST_SEED_CHARACTERS = 2_000_000
# One part in ten of each seed is not learnt from but tried on.
TRIED = 10
LEAST_RIGHT = 0.8

Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """How often held-out windows of the seeds got the right language."""

    right: int
    tried: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / max(1, self.tried)


class NgramDetector(Judge):
    """Chooses among the languages of its seeds; accepts `lang` and what else the caller accepts."""

    def __init__(self, seeds: Mapping[str, str], lang: str, accepted: frozenset[str]) -> None:
        """`seeds` maps codes to text. DataError: no seed in an accepted language, none in another, or too short."""
        self.labels = sorted(seeds)
        self.accepted = accepted
        if not any(primary(label) in accepted for label in self.labels):
            raise DataError(f"no seed text in `{lang}`: the seeds are in {', '.join(self.labels)}", hint=_HINT)
        if all(primary(label) in accepted for label in self.labels):
            raise DataError("all seed texts are in accepted languages: there is nothing to tell them from", hint=_HINT)
        for label in self.labels:
            if len(seeds[label]) < LEAST_SEED_CHARACTERS:
                raise DataError(
                    f"the seed text of `{label}` has {len(seeds[label]):,} characters; at least "
                    f"{LEAST_SEED_CHARACTERS:,} are needed",
                    hint=_HINT,
                )
        self.name = f"character n-grams of {', '.join(self.labels)}"
        digest = hashlib.sha256()
        for label in self.labels:
            digest.update(f"{label}\0{seeds[label]}\0".encode())
        self.digest = digest.hexdigest()
        self.knows = True
        texts = {label: _pieces(seeds[label][:MOST_SEED_CHARACTERS]) for label in self.labels}
        self._table = _learn([[piece for at, piece in enumerate(texts[label]) if at % TRIED] for label in self.labels])
        self.trial = self._try({label: texts[label][::TRIED] for label in self.labels})

    def judge(self, text: str, limit: int = WINDOW) -> Verdict:
        """One verdict on the first `limit` characters."""
        grams = ngrams(" ".join(text[:limit].split()))
        if not len(grams):
            return Verdict("und", 0.0, 0.0)
        scores = self._table[:, grams].mean(axis=1, dtype=np.float64) * min(EVIDENCE, len(grams))
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        accepted = sum(
            float(share) for label, share in zip(self.labels, shares, strict=True) if primary(label) in self.accepted
        )
        return Verdict(primary(self.labels[best]), min(1.0, accepted), float(shares[best]))

    def _try(self, texts: Mapping[str, Sequence[str]]) -> Trial:
        found = [(label, self.judge(piece).label) for label, pieces in texts.items() for piece in pieces]
        return Trial(sum(primary(label) == said for label, said in found), len(found))


_HINT = "give text in the language and in those it may be mixed with: --lid-seed fo=fo.txt --lid-seed da=da.txt"


def ngrams(text: str) -> npt.NDArray[np.int64]:
    """Buckets of all runs of 1 to 4 characters of the lower-cased text with a space at both ends."""
    codes = np.frombuffer(f" {text.lower()} ".encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    if len(codes) <= 2:
        return np.zeros(0, np.int64)
    found = []
    keys = np.zeros(len(codes), np.uint64)
    for length in range(1, LONGEST + 1):
        if length > len(codes):
            break
        keys = keys[: len(codes) - length + 1] * np.uint64(0x9E3779B97F4A7C15) + codes[length - 1 :]
        found.append(mix64(keys + np.uint64(length << 32)) % np.uint64(BUCKETS))
    return np.concatenate(found).astype(np.int64)


def _pieces(text: str) -> list[str]:
    """Stretches of one window's length, so that learning and judging see alike text."""
    plain = " ".join(text.split())
    return [plain[at : at + WINDOW] for at in range(0, len(plain), WINDOW)]


def _learn(texts: Sequence[Iterable[str]]) -> Table:
    """log P(bucket | language), [languages, buckets]; languages are equally likely whatever their amount of seed."""
    counts = np.full((len(texts), BUCKETS), SMOOTHING)
    for row, pieces in enumerate(texts):
        for piece in pieces:
            counts[row] += np.bincount(ngrams(piece), minlength=BUCKETS)
    shares: Table = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
