"""What must hold for a tokenizer whose tokens got other ids; each check compares the files as they were written."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from langadapt.vocab.checks import fuzz_texts, same_round_trip, still_spelled
from langadapt.vocab.loaded import Seen, loads_as_written, roles_kept, template_kept
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.scores import same_score
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = Mapping[int, int]


def moved_checks(base: TokenizerFile, new: TokenizerFile, ids: Ids, words: Mapping[str, int]) -> list[Outcome]:
    """All checks that need the files only; `ids` maps old id -> new id of each token that stayed."""
    return [
        ids_follow(base, new, ids),
        *_of_the_model(base, new),
        sections_same(base, new, ids),
        special_ids_follow(base, new, ids),
        still_reachable(base, new, ids),
        words_kept(base, new, ids, words),
        *([] if base.unknown is None else [still_spelled(base, new, words)]),
        same_round_trip(base, new, fuzz_texts(list(base.added))),
    ]


def ids_follow(base: TokenizerFile, new: TokenizerFile, ids: Ids) -> Outcome:
    """Each kept piece has the id of the map, in the base's order, from 0 without a gap; all added tokens stay."""
    after = new.tokenizer.get_vocab(with_added_tokens=True)
    expected = {piece: ids[number] for piece, number in base.pieces.items() if number in ids}
    broken = [f"`{piece}` is {after.get(piece)}, not {number}" for piece, number in expected.items()
              if after.get(piece) != number]  # fmt: skip
    broken += [f"`{piece}` is new" for piece in after.keys() - expected.keys()]
    if sorted(after.values()) != list(range(len(after))):
        broken.append("ids are not 0, 1, 2, ...")
    if [new_id for _, new_id in sorted(ids.items())] != sorted(ids.values()):
        broken.append("tokens changed their order")
    broken += [f"added token `{piece}` is gone" for piece in base.added.keys() - new.added.keys()]
    return Outcome("ids_follow", len(expected), tuple(sorted(broken)))


def _of_the_model(base: TokenizerFile, new: TokenizerFile) -> list[Outcome]:
    """What the model has beside its tokens: merges, scores, or nothing (WordPiece)."""
    if isinstance(base.model["vocab"], list):
        return [scores_are_those_of_kept(base, new)]
    return [merges_are_those_of_kept(base, new)] if "merges" in base.model else []


def scores_are_those_of_kept(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """Each kept piece has its score, and the lowest is what it was: unknown characters are reckoned from it."""
    before = dict(base.scored)
    broken = [f"`{piece}`: {before[piece]} -> {score}" for piece, score in new.model["vocab"]
              if piece in before and not same_score(before[piece], score)]  # fmt: skip
    if not same_score(base.lowest_score, new.lowest_score):
        broken.append(f"the lowest score: {base.lowest_score} -> {new.lowest_score}")
    return Outcome("scores_are_those_of_kept", len(new.model["vocab"]), tuple(broken))


def merges_are_those_of_kept(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """Exactly the merges whose parts and result were kept, in the old order."""
    there = new.model["vocab"].keys()
    wanted = [pair for pair in base.merges if pair[0] in there and pair[1] in there and pair[0] + pair[1] in there]
    broken = []
    if wanted != new.merges:
        lacking = sorted(set(wanted) - set(new.merges))[:5]
        broken.append(
            f"{len(new.merges)} merges, {len(wanted)} expected; not there: {lacking or 'none, but the order'}"
        )
    return Outcome("merges_are_those_of_kept", len(wanted), tuple(broken))


def sections_same(base: TokenizerFile, new: TokenizerFile, ids: Ids) -> Outcome:
    """Normaliser, pre-tokenizer, decoder and model options are what they were; added tokens have their flags.

    The id of a Unigram's unknown token is an option too: it follows.
    """
    broken = [name for name in ("normalizer", "pre_tokenizer", "decoder") if base.spec.get(name) != new.spec.get(name)]
    for key, value in base.model.items():
        wanted = ids.get(value) if key == "unk_id" else value
        if key not in ("vocab", "merges") and wanted != new.model.get(key):
            broken.append(f"model option {key}")
    flags = [
        [{key: value for key, value in token.items() if key != "id"} for token in file.spec.get("added_tokens") or []]
        for file in (base, new)
    ]
    if sorted(map(str, flags[0])) != sorted(map(str, flags[1])):
        broken.append("added_tokens")
    return Outcome("sections_same", 3 + len(base.model) + len(flags[0]), tuple(broken))


def special_ids_follow(base: TokenizerFile, new: TokenizerFile, ids: Ids) -> Outcome:
    """The post-processor adds the same tokens around a text, and added tokens in it are found, under their new ids."""
    texts = ["", "a", *base.added, *(f"a{content}a" for content in base.added)]
    before, after = set(base.added.values()), set(new.added.values())
    broken = []
    for text in texts:
        old = [ids.get(number, -1) for number in base.tokenizer.encode(text).ids if number in before]
        now = [number for number in new.tokenizer.encode(text).ids if number in after]
        if old != now:
            broken.append(f"`{text}`: {old} -> {now}")
    return Outcome("special_ids_follow", len(texts), tuple(broken))


def still_reachable(base: TokenizerFile, new: TokenizerFile, ids: Ids) -> Outcome:
    """Each kept token that the model (merges alone) made of its own text is made of it as before."""
    tokens = [(number, piece) for piece, number in base.vocab.items()
              if number in ids and piece not in base.added]  # fmt: skip
    pieces = [piece for _, piece in tokens]
    old = encode_all(base.model_stage(ignore_merges=False), pieces)
    now = encode_all(new.model_stage(ignore_merges=False), pieces)
    broken = [
        f"`{piece}` gives {after}"
        for (number, piece), before, after in zip(tokens, old, now, strict=True)
        if before == [number] and after != [ids[number]]
    ]
    return Outcome("still_reachable", len(tokens), tuple(broken))


def words_kept(base: TokenizerFile, new: TokenizerFile, ids: Ids, words: Mapping[str, int]) -> Outcome:
    """Every word of the text all of whose tokens were kept is cut into exactly those, if the base could read it."""
    types = sorted(words)
    pairs = zip(types, encode_all(base.model_stage(), types), encode_all(new.model_stage(), types), strict=True)
    examined, broken = 0, []
    for word, before, after in pairs:
        if base.unknown not in before and all(number in ids for number in before):
            examined += 1
            if [ids[number] for number in before] != after:
                broken.append(f"`{word}`: {before} -> {after}")
    return Outcome("words_kept", examined, tuple(broken))


def moved_loaded_checks(
    base: Seen,
    new: "PreTrainedTokenizerBase",
    file: TokenizerFile,
    texts: Sequence[str],
    ids: Ids,
) -> list[Outcome]:
    """`base` and `new` as transformers loads them, `file` as it was written, `texts` of the corpora."""
    after = Seen.of(new)
    return [roles_kept(base, after, ids=ids), chat_follows(base, after, ids), loads_as_written(new, file, texts)]


def chat_follows(base: Seen, new: Seen, ids: Ids) -> Outcome:
    """The chat template is the same, writes the same text, and that text has the same tokens under their new ids."""
    broken = template_kept(base, new)
    for (text, before), (_, after) in zip(base.chats, new.chats, strict=False):
        if tuple(ids.get(number, -1) for number in before) != after:
            broken.append(f"{text[:60]!r} has other tokens")
    return Outcome("chat_follows", len(base.chats) + 1, tuple(broken))


def chat_specials_follow(base: Seen, new: Seen, ids: Ids) -> Outcome:
    """The chat template is the same and writes the same text, with the same special tokens in the same order."""
    broken = template_kept(base, new)
    there = set(ids.values())
    for (text, before), (_, after) in zip(base.chats, new.chats, strict=False):
        old = [ids[number] for number in before if number in ids]
        now = [number for number in after if number in there]
        if old != now:
            broken.append(f"{text[:60]!r}: {old} -> {now}")
    return Outcome("chat_specials_follow", len(base.chats) + 1, tuple(broken))
