"""A new WordPiece or Unigram tokenizer with a model's special tokens and pipeline: nothing is guarded, all is learned.

**WordPiece** is grown as an extension is (choosing.py), from characters alone: pair merging proposes pieces, longest
match cuts the words anew, pieces that it takes fewer than `min_count` times go. The tokenizers library's trainer is not
used: it learns BPE merges and takes their results for pieces, whether longest match ever takes them or not, and which
of two equally frequent pairs comes first depends on the order of a hash table (measured: four runs on the same words
gave three vocabularies).

**Unigram** is trained by SentencePiece, on words with their counts, in one thread (Kudo 2018). The tokenizers library
has a trainer of its own, whose scores differ from run to run for the same reason. A tenth more pieces are trained; then
the least used go, until each comes out `min_count` times and `size` are left (least_used.py).

Characters: those that the text has `min_count` times, and printable ASCII, each in all forms that the model needs, so
that a text of them is never unknown. Rarer ones are unknown, or bytes where the base falls back to bytes.
"""

import io
import json
import string
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.types import NewToken
from langadapt.model.spelling import SPACE_MARK, byte_piece
from langadapt.vocab import least_used
from langadapt.vocab.checks import fuzz_texts
from langadapt.vocab.family import Growth, Wish, detect
from langadapt.vocab.fresh import digits_kept_apart, ids_in_order, special_ids
from langadapt.vocab.growing import count_letters
from langadapt.vocab.guard import Guard
from langadapt.vocab.letters import is_closed
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.renumber import with_model
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.unigram import reachable
from langadapt.vocab.uses import uses_on

_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
# Pieces that SentencePiece is asked for beyond those wanted: what the text hardly uses goes.
_SPARE = 0.1
# The library's own limit, in characters.
_LONGEST = 16


def bare(base: TokenizerFile, words: Mapping[str, int], min_count: int) -> TokenizerFile:
    """tokenizer.json with the added tokens of `base`, first and in their order, its byte tokens, and characters."""
    ids = special_ids(base)
    pieces = {piece: ids[number] for piece, number in base.added.items()}
    first = sorted(pieces, key=pieces.__getitem__)
    first += [] if base.unknown in ids or base.unknown is None else [_piece_of(base, base.unknown)]
    letters = sorted({*_PRINTABLE, *(letter for letter, count in _letters(base, words).items() if count >= min_count)})
    model: dict[str, Any]
    if isinstance(base.model["vocab"], list):
        scores = dict(base.scored)
        lone = [piece for piece in map(byte_piece, range(256)) if base.model.get("byte_fallback") and piece in scores]
        listed = [*first, *(piece for piece in lone if piece not in pieces)]
        listed += [letter for letter in dict.fromkeys([SPACE_MARK, *letters]) if letter not in {*listed}]
        vocab = [[piece, scores.get(piece, base.lowest_score)] for piece in listed]
        model = {"vocab": vocab, "unk_id": listed.index(_piece_of(base, base.model["unk_id"]))}
    else:
        mark = base.model["continuing_subword_prefix"]
        both = [*letters, *(mark + letter for letter in letters)]
        model = {"vocab": {piece: id for id, piece in enumerate(dict.fromkeys([*first, *both]))}}
    spec = with_model(base, base.model | model, pieces)
    spec["truncation"] = spec["padding"] = None
    return TokenizerFile(spec, base.place)


def _piece_of(base: TokenizerFile, id: int) -> str:
    return next(piece for piece, number in base.pieces.items() if number == id)


def _letters(base: TokenizerFile, words: Mapping[str, int]) -> Counter[str]:
    longest = int(base.model.get("max_input_chars_per_word", 10**9))
    return count_letters({word: count for word, count in words.items() if len(word) <= longest})


def grown(
    start: TokenizerFile, words: Mapping[str, int], wish: Wish, progress: Progress
) -> tuple[TokenizerFile, Growth]:
    """The finished tokenizer with up to `wish.size` tokens more than `start`, and what is to be said of them."""
    if isinstance(start.model["vocab"], list):
        return _trained(start, words, wish, progress)
    growth = detect(start).grow(words, Guard.of(start, ()), wish, progress)
    return TokenizerFile(json.loads(start.extended(growth.merges)), start.place), growth


def _trained(
    start: TokenizerFile, words: Mapping[str, int], wish: Wish, progress: Progress
) -> tuple[TokenizerFile, Growth]:
    letters = {piece for piece in start.vocab if len(piece) == 1}
    fixed = {piece: score for piece, score in start.model["vocab"] if piece not in letters}
    usable = {word: count for word, count in words.items() if letters.issuperset(word)}
    task = progress.start("training pieces", total=1, unit="runs")
    found = _sentencepiece(usable, letters, int((wish.size + len(letters)) * (1 + _SPARE)), wish)
    task.advance()
    task.finish()
    # a piece may be the string of a special token; one of SentencePiece's limits is in characters
    longer = [
        [piece, score]
        for piece, score in found
        if piece not in letters and piece not in fixed and len(start.spelling.content(piece)) <= wish.max_token_bytes
    ]
    scores = dict(found)
    lowest = min(scores.values())
    ordered = [[letter, scores.get(letter, lowest)] for letter in start.vocab if letter in letters]
    vocab = [*([piece, score] for piece, score in fixed.items()), *ordered, *longer]
    every = _with(start, vocab)
    first = len(fixed) + len(letters)
    stay = set(range(first)) | {id for id, why in least_used.always_stay(every).items() if why == "lowest score"}
    going = {
        slot.id for slot in least_used.rarest(every, words, stay, below=wish.min_count, least=len(longer) - wish.size)
    }
    new = _with(start, [entry for id, entry in enumerate(vocab) if id not in going])
    alone = encode_all(new.model_stage(), [piece for piece, _ in new.model["vocab"]])
    lost = {id for id, ids in enumerate(alone) if id >= first and ids != [id]}
    new = _with(start, [entry for id, entry in enumerate(new.model["vocab"]) if id not in lost])
    return new, _growth(new, first, words, wish, len(going) + len(lost))


def _with(start: TokenizerFile, vocab: Sequence[list[Any]]) -> TokenizerFile:
    return TokenizerFile(start.spec | {"model": start.model | {"vocab": list(vocab)}}, start.place)


def _growth(new: TokenizerFile, first: int, words: Mapping[str, int], wish: Wish, left_out: int) -> Growth:
    uses = uses_on(new, words)
    pieces = sorted((id, piece) for piece, id in new.vocab.items() if id >= first)
    tokens = tuple(NewToken(id, piece, new.spelling.content(piece), uses[id], "piece") for id, piece in pieces)
    notes = {
        "asked": wish.size,
        "missing": wish.size - len(tokens),
        "left_out_too_rare": left_out,
        "stepping_stones": 0,
    }
    return Growth(merges=(), tokens=tokens, learned=(), stepping_stones=frozenset(), notes=notes)


def _sentencepiece(words: Mapping[str, int], letters: set[str], size: int, wish: Wish) -> list[tuple[str, float]]:
    """Pieces with scores as SentencePiece trains them; characters that the words lack are among them."""
    import sentencepiece

    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        # words with counts are only taken from a file; what ends a line or a field there cannot be in one
        path = Path(folder) / "words.tsv"
        lines = [
            f"{word.replace(SPACE_MARK, ' ')}\t{words[word]}\n" for word in sorted(words) if len(word.split("\t")) == 1
            and len(word.splitlines()) == 1
        ]  # fmt: skip
        path.write_text("".join(lines), encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(path),
                input_format="tsv",
                model_writer=model,
                model_type="unigram",
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                required_chars="".join(sorted(letters - {SPACE_MARK})),
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                split_digits=wish.split_digits == "yes",
                max_sentencepiece_length=min(_LONGEST, wish.max_token_bytes),
                max_sentence_length=1 << 20,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise DataError(f"SentencePiece cannot train on this text: {error}") from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(id), float(trained.get_score(id))) for id in range(1, len(trained))]


def fresh_checks(
    base: TokenizerFile, start: TokenizerFile, new: TokenizerFile, words: Mapping[str, int], *, digits_apart: bool
) -> list[Outcome]:
    """What must hold; `start` is the bare tokenizer that `new` was grown from."""
    family = detect(new)
    if isinstance(new.model["vocab"], list):
        reached = reachable(start, new)
    else:
        reached = next(one for one in detect(start).checks(new, words) if one.name == "reachable")
    other = () if family.name == detect(base).name else (family.name,)
    return [
        ids_in_order(start, new),
        reached,
        _closed(new),
        _round_trip(base, new),
        digits_kept_apart(base, new, digits_apart),
        Outcome("same_family", 1, other),
    ]


def _closed(new: TokenizerFile) -> Outcome:
    """Every character of a piece, and every printable one of ASCII, can be written alone."""
    texts = [*_PRINTABLE, *(f"a{letter}" for letter in _PRINTABLE)]
    broken = [text for text in texts if new.unknown in new.tokenizer.encode(text, add_special_tokens=False).ids]
    return Outcome(
        "characters_alone", len(texts) + 1, (*broken, *(() if is_closed(new) else ("a character in a piece",)))
    )


def _round_trip(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """Text that both can read comes back as from the base, but for blanks: pieces of several spaces are not trained."""
    broken, texts = [], fuzz_texts([])
    for text in texts:
        before, after = (file.tokenizer.encode(text, add_special_tokens=False).ids for file in (base, new))
        if base.unknown in before or new.unknown in after:
            continue
        one, two = (file.tokenizer.decode(ids) for file, ids in ((base, before), (new, after)))
        if one.split() != two.split():
            broken.append(f"{text[:40]!r}")
    return Outcome("same_round_trip", len(texts), tuple(broken))
