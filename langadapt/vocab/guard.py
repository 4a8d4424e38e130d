"""The guard: which joins are forbidden so that protected text keeps exactly the token ids that it has."""

import itertools
import keyword
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langadapt.core.progress import Progress
from langadapt.model.spelling import ByteLevel, Spelling
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all

_REPORTED = 5000


def with_variants(words: Iterable[str], spelling: Spelling | None = None) -> set[str]:
    """The words (printable form), and each alphabetic one also capitalised, in lower case, and without or with a space.

    A word that a corpus has in the middle of a sentence stands at a line start elsewhere. Measured (English guard of
    11 MB, Hungarian target): three times fewer words of unseen essays change, for 1.4 % more Hungarian tokens.
    `spelling` is how the words are written, in the byte alphabet if it is not given.
    """
    spelling = spelling or ByteLevel()
    found = set(words)
    for word in words:
        try:
            text = spelling.content(word).decode("utf-8").removeprefix(" ")
        except UnicodeDecodeError:
            continue
        if text.isalpha():
            for form in {text, text.lower(), text.capitalize()}:
                found.update(spelling.piece(start + form.encode()) for start in spelling.word_starts)
    return found


@dataclass(frozen=True)
class Guard:
    """What the protected words forbid.

    Why this is a proof: new merges come after all old ones, so a protected word is first cut exactly as before. A new
    merge could only act on two neighbours of that cut, every such pair is in `pairs`, and no pair in it is ever
    merged. With `ignore_merges` a word that the vocabulary holds is emitted whole, so no new token may be a
    protected word: those are `whole`. Families without merges have arguments of their own, see their files.

    A word that the base cannot read (it becomes the unknown token) is not protected: keeping it unreadable would
    forbid the very characters that the vocabulary lacks.
    """

    pairs: frozenset[tuple[int, int]]
    whole: frozenset[str]
    words: tuple[str, ...]

    @classmethod
    def of(cls, base: TokenizerFile, words: Iterable[str], progress: Progress | None = None) -> "Guard":
        """Guard these pre-tokens (printable form)."""
        types = sorted(set(words))
        pairs: set[tuple[int, int]] = set()
        whole: set[str] = set()
        readable = []
        cut = zip(types, encode_all(base.model_stage(), types), strict=True)
        task = "cutting protected words"
        for word, ids in (progress or Progress()).track(cut, task, total=len(types), unit="words", every=_REPORTED):
            if base.unknown in ids:
                continue
            readable.append(word)
            pairs.update(itertools.pairwise(ids))
            if base.ignore_merges and len(ids) > 1:
                whole.add(word)
        return cls(frozenset(pairs), frozenset(whole), tuple(readable))


# Longer runs than this (indentation, rulers) are rare, and a run of n holds the pairs of every longer one's start.
_LONGEST_RUN = 64
_NUMBERS = 10_000


def always_guarded(chat_texts: Sequence[str]) -> list[str]:
    """Texts that no language should change: chat scaffolding, numbers, punctuation, indentation, program words.

    A guard corpus of prose covers them badly (4-space indentation, `!=`, `});`), and what a model was tuned to
    read as markup or code is lost silently when its ids change.
    """
    blank = [" ", "\t", "\n", "\r\n"]
    runs = [mark * length for mark in [*blank, *string.punctuation] for length in range(1, _LONGEST_RUN + 1)]
    indents = ["\n" + mark * length + "x" for mark in (" ", "\t") for length in range(1, _LONGEST_RUN + 1)]
    marks = ["".join(pair) for pair in itertools.product(string.punctuation, repeat=2)]
    marks += [mark + end for mark in marks for end in ("\n", " \n")]
    words = sorted({*keyword.kwlist, *_PROGRAM_WORDS.split()})
    numbers = [str(number) for number in range(_NUMBERS)]
    plain = [*string.ascii_letters, *marks, *words, *numbers]
    return [*chat_texts, *runs, *indents, *plain, *(" " + text for text in plain)]


# Reserved words of C, Java, JavaScript, Rust, Go, SQL and shell that Python lacks, and the bare bones of HTML.
_PROGRAM_WORDS = """
BY CREATE DELETE FROM GROUP INNER INSERT INTO JOIN LEFT LIMIT NOT NULL ORDER SELECT TABLE UPDATE VALUES WHERE args
assistant auto body bool boolean byte case catch char class com console const constexpr data default delete dict div
do done double echo elseif endif enum error esac export extends extern false fi final float fn foreach fun func
function goto head href html http https id img impl implements include index init inline int integer interface key
kwargs len let list local log long main map match mod mut name namespace new nil null number object org override
package print printf println private protected pub public range require select self short signed sizeof span src
static str string struct sudo super switch system template then this throw throws tool true try type typedef typeof
union unsigned use user using utf value var vector virtual void volatile where width www xor
"""
