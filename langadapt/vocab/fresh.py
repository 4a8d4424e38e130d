"""A tokenizer with nothing but a model's special tokens and the 256 bytes: what a new vocabulary is grown from.

The new vocabulary is learned as an extension is (see byte_bpe.py), only that nothing is there yet and nothing is
guarded: pairs of bytes are merged, rare leaves and halves of characters are dropped again. So every token that is not a
part of others is whole text that occurs `min_count` times, which trainers that stop at a size do not give.

Levels other than `bpe` forbid tokens across characters, or across what readers see as one (extended grapheme clusters,
Unicode TR 29), by cutting there before the model runs. Their merges only join bytes inside.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langadapt.model.bytes_alphabet import to_piece
from langadapt.model.spelling import family_of
from langadapt.vocab.checks import fuzz_texts
from langadapt.vocab.loaded import ROLE_TOKENS
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.renumber import in_order, with_model
from langadapt.vocab.rules import joins_digits
from langadapt.vocab.token_line import line_of
from langadapt.vocab.tokenizer_file import TokenizerFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Level = Literal["bpe", "character", "grapheme"]
_PATTERNS = {"character": r"[\s\S]", "grapheme": r"\X"}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def special_ids(base: TokenizerFile) -> dict[int, int]:
    """Old id -> new id of the added tokens: first in the new vocabulary, in their order."""
    return in_order(set(base.added.values()))


def keeps_pipeline(base: TokenizerFile, level: Level) -> bool:
    """Can normaliser, pre-tokenizer and decoder of the base stay as they are?"""
    return level == "bpe" and family_of(base.spec) == "byte-bpe"


def bare(base: TokenizerFile, level: Level, *, digits_apart: bool) -> TokenizerFile:
    """tokenizer.json with the added tokens of `base` and one token a byte, without merges."""
    ids = special_ids(base)
    pieces = {piece: ids[number] for piece, number in base.added.items()}
    vocab = dict(sorted(pieces.items(), key=lambda item: item[1]))
    for byte in range(256):
        vocab[to_piece(bytes([byte]))] = len(vocab)
    spec = with_model(base, {"type": "BPE", "vocab": vocab, "merges": []}, pieces)
    spec["truncation"] = spec["padding"] = None
    if not keeps_pipeline(base, level):
        if family_of(base.spec) != "byte-bpe":
            # others turn spaces into marks here, which byte-level models do not know
            spec["normalizer"] = None
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": _cuts(level, digits_apart)}
        spec["decoder"] = _BYTE_LEVEL | {"use_regex": True}
    return TokenizerFile(spec, base.place)


def _cuts(level: Level, digits_apart: bool) -> list[dict[str, Any]]:
    if level == "bpe":
        digits = [{"type": "Digits", "individual_digits": True}] if digits_apart else []
        return [*digits, _BYTE_LEVEL | {"use_regex": True}]
    split = {"type": "Split", "pattern": {"Regex": _PATTERNS[level]}, "behavior": "Isolated", "invert": False}
    return [split, _BYTE_LEVEL | {"use_regex": False}]


def settings_of(base: TokenizerFile, level: Level, loaded: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """What tokenizer_config.json must say otherwise: classes of model families bring their own pipeline.

    They also know the roles of their special tokens, which a settings file may leave to them; here it says them.
    """
    if keeps_pipeline(base, level):
        return {}
    roles = {role: str(token) for role in ROLE_TOKENS if (token := getattr(loaded, role)) is not None}
    others = [str(token) for token in loaded.all_special_tokens if str(token) not in roles.values()]
    more = {"extra_special_tokens": others} if others else {}
    return {"tokenizer_class": "PreTrainedTokenizerFast"} | roles | more


def fresh_checks(base: TokenizerFile, start: TokenizerFile, new: TokenizerFile, *, digits_apart: bool) -> list[Outcome]:
    """What must hold beside reachability; `start` is the bare tokenizer that `new` was grown from."""
    return [ids_in_order(start, new), exact_round_trip(new), digits_kept_apart(base, new, digits_apart)]


def ids_in_order(start: TokenizerFile, new: TokenizerFile) -> Outcome:
    """Special tokens first, then bytes, then what was learned, without a gap."""
    after = new.tokenizer.get_vocab(with_added_tokens=True)
    broken = [f"`{piece}` {number} -> {after.get(piece)}" for piece, number in start.pieces.items()
              if after.get(piece) != number]  # fmt: skip
    if sorted(after.values()) != list(range(len(after))):
        broken.append("ids are not 0, 1, 2, ...")
    return Outcome("ids_in_order", len(after), tuple(broken))


def exact_round_trip(new: TokenizerFile, more: Sequence[str] = ()) -> Outcome:
    """decode(encode(x)) is x after normalisation, for any text: every byte has a token."""
    tokenizer = new.tokenizer
    broken = []
    texts = [*fuzz_texts([]), *more]
    for text in texts:
        plain = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        back = str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False))
        # some byte-level tokenizers put a space before a text
        if back not in (plain, f" {plain}"):
            broken.append(f"{text[:40]!r}")
    return Outcome("exact_round_trip", len(texts), tuple(broken))


def digits_kept_apart(base: TokenizerFile, new: TokenizerFile, digits_apart: bool) -> Outcome:
    """No token holds two digits where the base keeps digits apart."""
    pieces = [piece for piece in new.vocab if piece not in base.added]
    broken = [piece for piece in pieces if digits_apart and joins_digits(new.spelling.content(piece))]
    return Outcome("digits_apart", len(pieces) if digits_apart else 0, tuple(broken))


def map_lines(header: Mapping[str, object], growth: Any, kept: Mapping[int, int]) -> list[dict[str, object]]:
    """vocab_map.jsonl: a header, then one line a learned token; `old_id` where the base has the token too."""
    olds = {new: old for old, new in kept.items()}
    lines: list[dict[str, object]] = []
    for token in growth.tokens:
        lines.append(line_of(token) | ({"old_id": olds[token.id]} if token.id in olds else {}))
    return [dict(header), *lines]
