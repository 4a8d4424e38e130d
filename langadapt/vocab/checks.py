"""What must hold after a vocabulary was extended; each check compares the files as they were written.

What holds for one kind of model only is asked of the family: BPE's own are here, those of the others in their files.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from langadapt.core.progress import Task
from langadapt.core.rng import stream
from langadapt.vocab.family import Family
from langadapt.vocab.guard import Guard
from langadapt.vocab.letters import became_unknown
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.scripts import only_in
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all, stand_in

_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens", "truncation", "padding")


def file_checks(
    base: TokenizerFile,
    new: TokenizerFile,
    family: Family,
    guard: Guard,
    words: Mapping[str, int],
    *,
    start: TokenizerFile | None = None,
    ids: Sequence[int] | None = None,
    task: Task | None = None,
) -> list[Outcome]:
    """All checks that need the tokenizer files only; `task` hears of each, for some take seconds.

    `start` is the base without the tokens that were given up, `ids` those that new tokens should have; without them
    everything of the base must be there, and new ids follow the largest.
    """
    start = start or base
    gone = base.pieces.keys() - start.pieces.keys()
    found: list[Outcome] = []
    for check in (
        partial(ids_kept, base, new, gone, ids),
        partial(sections_kept, start, new),
        partial(special_ids_added, start, new),
        partial(guarded_words_kept, base, new, guard),
        partial(same_round_trip, base, new, fuzz_texts(list(start.added))),
        *([] if base.unknown is None else [partial(still_spelled, base, new, words)]),
    ):
        found.append(check())
        if task is not None:
            task.advance(detail=found[-1].name)
    for outcome in family.checks(new, words):
        found.append(outcome)
        if task is not None:
            task.advance(detail=outcome.name)
    return found


def ids_kept(
    base: TokenizerFile, new: TokenizerFile, gone: Collection[str] = (), ids: Sequence[int] | None = None
) -> Outcome:
    """Every old piece that is not `gone` keeps its id, no id has two pieces, and new tokens have just the given ids.

    Without `ids` they must follow the largest old one without a gap.
    """
    whole = base.tokenizer.get_vocab(with_added_tokens=True)
    before = {piece: number for piece, number in whole.items() if piece not in gone}
    after = new.tokenizer.get_vocab(with_added_tokens=True)
    broken = [
        f"`{piece}` {number} -> {after.get(piece)}" for piece, number in before.items() if after.get(piece) != number
    ]
    broken += [
        f"id {number} is `{new.tokenizer.id_to_token(number)}`, was `{piece}`"
        for piece, number in before.items()
        if new.tokenizer.id_to_token(number) != piece
    ]
    broken += [f"`{piece}` was given up and is there" for piece in gone if piece in after]
    fresh = sorted(number for piece, number in after.items() if piece not in before)
    broken += [f"id {id} was given up for nothing" for id in ids or () if stand_in(id) in after]
    if ids is not None and fresh != sorted(ids):
        broken.append(f"{len(fresh)} new tokens do not have the {len(ids)} ids that were given up for them")
    if ids is None and fresh != list(range(base.next_id, base.next_id + len(fresh))):
        broken.append(f"new ids are not {base.next_id} to {base.next_id + len(fresh) - 1}")
    if len(set(after.values())) != len(after):
        broken.append("an id belongs to two pieces")
    return Outcome("ids_kept", len(after), tuple(sorted(broken)))


def merges_kept(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """The old merges come first and in their order: new ones never take precedence."""
    old = base.merges
    broken = [
        f"rank {rank}: {merge} became {other}"
        for rank, (merge, other) in enumerate(itertools.zip_longest(old, new.merges[: len(old)]))
        if merge != other
    ]
    # a token of one character is looked up, no merge makes it
    added = sum(len(piece) > 1 for piece in new.pieces.keys() - base.pieces.keys())
    if len(new.merges) - len(old) != added:
        broken.append(f"{added} new tokens have {len(new.merges) - len(old)} merges")
    return Outcome("merges_kept", len(new.merges), tuple(broken))


def sections_kept(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """Normaliser, pre-tokenizer, post-processor (with its ids), decoder and added tokens are what they were."""
    # the base is compared as the installed library would write it, which is how the new file was written
    before = TokenizerFile(_as_written(base), base.place)
    broken = [name for name in _SECTIONS if before.spec.get(name) != new.spec.get(name)]
    model = {"vocab", "merges"}
    old_rest = {key: value for key, value in before.model.items() if key not in model}
    if old_rest != {key: value for key, value in new.model.items() if key not in model}:
        broken.append("model options")
    return Outcome("sections_kept", len(_SECTIONS) + 1, tuple(broken))


def _as_written(file: TokenizerFile) -> dict[str, Any]:
    import json

    from tokenizers import Tokenizer

    spec: dict[str, Any] = json.loads(Tokenizer.from_str(json.dumps(file.spec)).to_str())
    return spec


def special_ids_added(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """The post-processor adds the same ids around a text, and added tokens are recognised in it with their ids."""
    texts = ["", "a", *base.added, *(f"a{content}a" for content in base.added)]
    # a character of the text may be unknown to the base only
    added = set(base.added.values()) - {base.unknown}
    broken = []
    for text in texts:
        # the letter itself may have become part of a new token, with the space that some tokenizers put before a text
        before, after = (
            [number for number in file.tokenizer.encode(text).ids if number in added] for file in (base, new)
        )
        if before != after:
            broken.append(f"`{text}`: {before} -> {after}")
    return Outcome("special_ids_added", len(texts), tuple(broken))


def reachable(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """The model stage turns the bytes of every new token into just this token, merges alone (`ignore_merges` off).

    This is exact: if a token comes out anywhere in a word, nothing inside it depended on what is around it, so it
    comes out of its own bytes as well.
    """
    fresh = sorted((number, piece) for piece, number in new.pieces.items() if piece not in base.pieces)
    model = new.model_stage(ignore_merges=False)
    cut = encode_all(model, [piece for _, piece in fresh])
    broken = [f"`{piece}` gives {ids}" for (number, piece), ids in zip(fresh, cut, strict=True) if ids != [number]]
    return Outcome("reachable", len(fresh), tuple(broken))


def guarded_words_kept(base: TokenizerFile, new: TokenizerFile, guard: Guard) -> Outcome:
    """Every guarded word, all of them, has exactly the ids that it had."""
    pairs = zip(
        guard.words,
        encode_all(base.model_stage(), guard.words),
        encode_all(new.model_stage(), guard.words),
        strict=True,
    )
    broken = tuple(f"`{word}`: {before} -> {after}" for word, before, after in pairs if before != after)
    return Outcome("guarded_words_kept", len(guard.words), broken)


def only_joins(base: TokenizerFile, new: TokenizerFile, family: Family, words: Mapping[str, int]) -> Outcome:
    """On the target's words the new cuts are a subset of the old ones: tokens were joined, nothing was cut anew."""
    types = sorted(words)
    lengths = _Lengths(new, family)
    broken = []
    pairs = zip(types, encode_all(base.model_stage(), types), encode_all(new.model_stage(), types), strict=True)
    for word, before, after in pairs:
        if before == after:
            continue
        old = set(itertools.accumulate(lengths[number] for number in before))
        if not old.issuperset(itertools.accumulate(lengths[number] for number in after)):
            broken.append(f"`{word}`: {before} -> {after}")
    return Outcome("only_joins", len(types), tuple(broken))


def still_spelled(base: TokenizerFile, new: TokenizerFile, words: Mapping[str, int]) -> Outcome:
    """Words that the base can read did not become unknown."""
    broken = became_unknown(base, new.model_stage(), new.unknown, words)
    return Outcome("still_spelled", len(words), broken)


def same_round_trip(base: TokenizerFile, new: TokenizerFile, texts: Sequence[str]) -> Outcome:
    """decode(encode(text)) gives what the base gives (which need not be the text: a base may lack bytes).

    Texts with a character that is unknown to the base are left out: the new tokenizer may well know it.
    """
    before, after = _round_trip(base), _round_trip(new)
    readable = [text for text in texts if base.unknown not in base.tokenizer.encode(text, add_special_tokens=False).ids]
    broken = tuple(f"{text[:40]!r}" for text in readable if before(text) != after(text))
    return Outcome("same_round_trip", len(readable), broken)


def holds_script(base: TokenizerFile, new: TokenizerFile, family: Family, scripts: Collection[str]) -> Outcome:
    """Each new token can stand only in text that has a letter of `scripts`: all other text keeps its ids."""
    fresh = sorted(new.pieces.keys() - base.pieces.keys())
    broken = tuple(f"`{piece}`" for piece in fresh if not only_in(family.content(piece), scripts))
    return Outcome("holds_script", len(fresh), broken)


class _Lengths(dict[int, int]):
    """Bytes that each token stands for, looked up when it is met: added tokens need not be spelled as others are."""

    def __init__(self, file: TokenizerFile, family: Family) -> None:
        super().__init__()
        self._pieces = {number: piece for piece, number in file.pieces.items()}
        self._family = family

    def __missing__(self, number: int) -> int:
        length = self[number] = len(self._family.content(self._pieces[number]))
        return length


def _round_trip(file: TokenizerFile) -> Callable[[str], str]:
    tokenizer = file.tokenizer

    def again(text: str) -> str:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    return again


def fuzz_texts(added: Sequence[str]) -> list[str]:
    """Awkward texts, always the same: blanks, marks, emoji, right-to-left, long runs, special strings, random ones."""
    fixed = [
        "",
        " ",
        "  leading and trailing  ",
        "tab\tnew\nline\r\nCRLF\u00a0nbsp\u2028ls\u200bzwsp",
        "e\u0301 o\u0308 a\u0308\u0323 \u0e01\u0e33\u0e49",
        "👩\u200d👩\u200d👧 🇭🇺 ☃️",
        "שלום עולם مرحبا بالعالم",
        "0123456789 3.14 1,000,000 ١٢٣ ²³",
        "▁under▁ <0x41> \\u0041 Ġ Ċ á é í",
        "\x00\x01\x7f\u0080\ufeff\ufffd\U0010ffff",
        "a" * 100_000,
        "ő" * 20_000,
        " " * 5_000,
        *added[:32],
        *(f"x{content} y" for content in added[:32]),
    ]
    random = stream(0, "tokenizer-fuzz")
    spans = [(0x20, 0x7F), (0x80, 0x250), (0x370, 0x600), (0x900, 0xE80), (0x3000, 0xD7FF), (0x1F300, 0x1FAFF)]
    for _ in range(200):
        picked = random.integers(0, len(spans), size=random.integers(1, 60))
        fixed.append("".join(chr(random.integers(*spans[place])) for place in picked))
    return fixed
