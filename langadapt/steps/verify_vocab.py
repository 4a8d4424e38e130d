"""What extending or trimming a vocabulary promises, proved again on the files. Plain functions: nothing is kept."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.steps._verify_relation import Pair, Relation, relation_of

if TYPE_CHECKING:
    from langadapt.steps._sentencepiece import Companion
    from langadapt.vocab.outcome import Outcome

# What the checks say, for people.
SAID = {
    "ids_kept": "old tokens keep their ids, new ones have free ones",
    "ids_follow": "kept tokens have the ids of the map",
    "merges_kept": "old merges stand first, in their order",
    "merges_are_those_of_kept": "merges are those of the kept tokens",
    "scores_kept": "old pieces keep their scores",
    "scores_are_those_of_kept": "kept pieces keep their scores",
    "sections_kept": "normaliser, pre-tokenizer, decoder as before",
    "sections_same": "normaliser, pre-tokenizer, decoder as before",
    "special_ids_added": "special tokens in and around a text",
    "special_ids_follow": "special tokens in and around a text",
    "always_guarded_kept": "markup, numbers, chat and code keep their ids",
    "guarded_words_kept": "words of the guard's text keep their ids",
    "same_round_trip": "text comes back as it does from the base",
    "exact_round_trip": "text comes back as it was",
    "reachable": "new tokens come out of their own text",
    "still_reachable": "kept tokens come out of their own text",
    "only_joins": "tokens were joined, nothing is cut anew",
    "still_spelled": "readable words stay readable",
    "roles_kept": "begin, end, padding are the tokens they were",
    "roles_follow": "begin, end, padding are the tokens they were",
    "chat_kept": "a chat has the ids that it had",
    "chat_follows": "a chat has the tokens that it had",
    "chat_specials_follow": "a chat has its special tokens",
    "loads_as_written": "transformers cuts as the file says",
    "words_kept": "words of kept tokens are cut as before",
    "rows_follow_tokens": "each kept token has its own row",
    "sentencepiece_pieces": "the .model has the pieces of tokenizer.json",
    "sentencepiece_cuts": "the .model cuts as tokenizer.json does",
}  # fmt: skip
# More text than this is only measured by its beginning.
TEXT_BYTES = 20_000_000


@dataclass(frozen=True)
class Measured:
    """What a text that is not the guard's meets: nothing is promised of it."""

    text: str
    words: int
    words_changed: int
    lines: int
    lines_same: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """`mode` says how the second tokenizer came from the first; `notes` what could not be looked at, and why."""

    mode: str
    outcomes: "tuple[Outcome, ...]"
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]

    @property
    def broken(self) -> "list[Outcome]":
        """Promises that do not hold."""
        return [outcome for outcome in self.outcomes if outcome.broken]


def verify_vocab(
    base: str, extended: str, texts: Sequence[Path] = (), *, limit: int = TEXT_BYTES, progress: Progress | None = None
) -> Verified:
    """Compare two tokenizers, and the rows of their models where both have weights.

    `texts` that are the guard of the tokenizer artifact must keep their ids; others are measured. DataError if the two
    do not belong together, or something cannot be read.
    """
    progress = progress or Progress()
    places = [_place(given, progress) for given in (base, extended)]
    pair = Pair.of(*places)
    relation = relation_of(pair)
    guards = [text for text in texts if _is_guard(text, relation.artifact)]
    others = {text: _read(text, limit) for text in texts if text not in guards}
    samples = [text for part in others.values() for text in part]
    checking = progress.start("checking the tokenizer", unit="checks")
    outcomes = []
    for outcome in _checks(pair, relation, guards, samples):
        outcomes.append(outcome)
        checking.advance(detail=outcome.name)
    rows, notes = _rows(pair, relation)
    checking.advance(len(rows), detail="rows")
    checking.finish()
    if relation.mode in ("trim", "new-tokenizer"):
        others = {}
    elif relation.artifact is not None and relation.artifact.kind == "model":
        notes.append("a model does not say which text was guarded: its tokenizer artifact does")
    elif not guards:
        notes.append("no text of the guard was given: only what is always guarded was looked at (--text)")
    measured = tuple(_measure(pair, str(text), part) for text, part in others.items())
    looked_at = (outcome for outcome in [*outcomes, *rows] if outcome.examined or outcome.broken)
    return Verified(relation.mode, tuple(looked_at), measured, tuple(notes))


def _place(given: str, progress: Progress) -> Path:
    from langadapt.core.verified import verify_content
    from langadapt.model.load import resolve_tokenizer

    if not given.strip():
        raise DataError("the name of a tokenizer is empty", hint="is a variable of the shell not set?")
    place = resolve_tokenizer(given, progress)
    if place.is_file():
        place = place.parent
    if is_artifact(place):
        verify_content(open_artifact(place, "tokenizer", "model"))
    return place


def _is_guard(text: Path, artifact: Artifact | None) -> bool:
    """Is it a text whose words were protected when the tokenizer was made?"""
    from langadapt.core.inputs import digest_of

    told = artifact.manifest["inputs"].get("guard") if artifact is not None else None
    if not told:
        return False
    return (open_artifact(text, "corpus").digest if is_artifact(text) else digest_of(text)) in told


def _read(text: Path, limit: int) -> list[str]:
    from langadapt.steps.tokenizers import read_texts

    return read_texts([text], limit)


def _guarded_texts(text: Path, artifact: Artifact) -> Iterator[str]:
    """What extend-vocab took its words from."""
    from langadapt.corpus.store import documents

    taken = 0
    for document in documents(text, "train"):
        taken += len(document.text.encode())
        if taken > int(artifact.manifest["config"]["max_guard_bytes"]):
            return
        yield document.text


def _checks(pair: Pair, relation: Relation, guards: Sequence[Path], texts: Sequence[str]) -> "Iterator[Outcome]":
    if relation.mode == "trim":
        yield from _trimmed(pair, relation, texts)
    elif relation.mode == "new-tokenizer":
        yield from _replaced(pair, texts)
    else:
        yield from _extended(pair, relation, guards, texts)


def _extended(pair: Pair, relation: Relation, guards: Sequence[Path], texts: Sequence[str]) -> "Iterator[Outcome]":
    from dataclasses import replace

    from langadapt.steps._sentencepiece import look_beside
    from langadapt.vocab import checks, loaded
    from langadapt.vocab.family import detect
    from langadapt.vocab.gguf_probe import PROBE
    from langadapt.vocab.guard import Guard, always_guarded, with_variants
    from langadapt.vocab.words import count_words

    base, companion, _ = look_beside(pair.base_folder, pair.base, texts[:1])
    new, start = pair.new, base.without(set(relation.gone.values()))
    yield checks.ids_kept(base, new, relation.gone.values(), relation.taken)
    yield checks.sections_kept(start, new)
    yield checks.special_ids_added(start, new)
    always = always_guarded([*loaded.chat_texts(pair.base_loaded), *loaded.template_sources(pair.base_loaded), PROBE])
    words = with_variants(count_words(base, always), base.spelling)
    kept = checks.guarded_words_kept(base, new, Guard.of(base, words))
    yield replace(kept, name="always_guarded_kept")
    for text in guards:
        seen = count_words(base, _guarded_texts(text, _needed(relation.artifact)))
        yield checks.guarded_words_kept(base, new, Guard.of(base, seen))
    yield checks.same_round_trip(base, new, [*checks.fuzz_texts(list(start.added)), *texts])
    met = count_words(base, texts) if base.ranks is None else Counter[str]()
    if base.unknown is not None:
        yield checks.still_spelled(base, new, met)
    yield from detect(start).checks(new, met)
    gone = tuple(relation.gone.values())
    yield from loaded.loaded_checks(loaded.Seen.of(pair.base_loaded), pair.new_loaded, new, texts[:_LOADED], gone=gone)
    yield from _beside(pair, companion, texts)


_LOADED = 200


def _beside(pair: Pair, companion: "Companion | None", texts: Sequence[str]) -> "Iterator[Outcome]":
    """The SentencePiece `.model`, where both have one."""
    from langadapt.model import spm_model

    written = spm_model.find(pair.new_folder)
    if companion is not None and written is not None:
        yield from companion.checks(pair.new, written, texts[:1])


def _needed(artifact: Artifact | None) -> Artifact:
    if artifact is None:
        raise DataError("internal: a guard without an artifact")
    return artifact


def _trimmed(pair: Pair, relation: Relation, texts: Sequence[str]) -> "Iterator[Outcome]":
    from langadapt.steps._sentencepiece import look_beside
    from langadapt.vocab import loaded, moved_checks
    from langadapt.vocab.words import count_words

    yield from moved_checks.moved_checks(pair.base, pair.new, relation.ids, count_words(pair.base, texts))
    yield from moved_checks.moved_loaded_checks(
        loaded.Seen.of(pair.base_loaded), pair.new_loaded, pair.new, texts[:_LOADED], relation.ids
    )
    yield from _beside(pair, look_beside(pair.base_folder, pair.base, texts[:1])[1], texts)


def _replaced(pair: Pair, texts: Sequence[str]) -> "Iterator[Outcome]":
    from langadapt.model.spelling import family_of
    from langadapt.vocab import fresh, loaded, moved_checks

    # of the text tokens only strings are the same, by chance: text may be cut into others
    ids = fresh.special_ids(pair.base)
    yield moved_checks.special_ids_follow(pair.base, pair.new, ids)
    if family_of(pair.new.spec) == "byte-bpe":
        yield fresh.exact_round_trip(pair.new, texts)
    before, after = loaded.Seen.of(pair.base_loaded), loaded.Seen.of(pair.new_loaded)
    yield loaded.roles_kept(before, after, ids=ids)
    yield moved_checks.chat_specials_follow(before, after, ids)
    yield loaded.loads_as_written(pair.new_loaded, pair.new, texts[:_LOADED])


def _rows(pair: Pair, relation: Relation) -> "tuple[list[Outcome], list[str]]":
    """Rows of kept tokens, where both folders are models and the second was not trained as a whole."""
    from langadapt.model.kept_rows import kept_rows
    from langadapt.model.tables import open_tables
    from langadapt.vocab.outcome import Outcome

    lacking = [folder for folder in (pair.base_folder, pair.new_folder) if not any(folder.glob("*.safetensors"))]
    if lacking:
        return [], [f"`{lacking[0]}` has no weights: rows are not compared"]
    artifact = relation.artifact
    if artifact is not None and artifact.manifest["verb"] not in ("init-embeddings", "refine-embeddings"):
        return [], [f"rows are not compared: `{artifact.manifest['verb']}` may have trained them (verify shield)"]
    base, new = open_tables(pair.base_folder), open_tables(pair.new_folder)
    origin = relation.origin
    outcomes = []
    if origin is not None:
        pairs = relation.ids.items() if relation.ids else ((id, id) for id in pair.base.pieces.values())
        kept = [(old, now) for old, now in pairs if relation.ids or old not in relation.gone]
        strangers = [f"{old} -> {now}: row {now} is not its row" for old, now in kept if origin[now] != old]
        outcomes.append(Outcome("rows_follow_tokens", len(kept), tuple(strangers)))
    for found in kept_rows(base, new, origin):
        broken = tuple(f"row {old} -> {now} `{base.tokens.piece(old)}`" if old < base.tokens.size else f"row {old}"
                       for old, now in found.changed)  # fmt: skip
        outcomes.append(Outcome(f"{found.table}: kept rows are the base's bits", found.rows, broken))
    return outcomes, []


def _measure(pair: Pair, name: str, texts: Sequence[str]) -> Measured:
    from langadapt.vocab.metrics import lines_of
    from langadapt.vocab.tokenizer_file import encode_all
    from langadapt.vocab.words import count_words

    counts = count_words(pair.base, texts)
    words = sorted(counts, key=lambda word: (-counts[word], word))  # frequent ones make better examples
    stages = pair.base.model_stage(), pair.new.model_stage()
    cuts = zip(words, *(encode_all(stage, words) for stage in stages), strict=True)
    changed = [f"`{_shown(pair, word)}`: {before} -> {after}" for word, before, after in cuts if before != after]
    lines = lines_of(texts)
    both = zip(*(encode_all(file.tokenizer, lines) for file in (pair.base, pair.new)), strict=True)
    same = sum(before == after for before, after in both)
    return Measured(name, len(words), len(changed), len(lines), same, tuple(changed[:_SHOWN]))


_SHOWN = 10


def _shown(pair: Pair, word: str) -> str:
    try:
        return pair.base.spelling.content(word).decode("utf-8", "replace")
    except DataError:
        return word


def record(verified: Verified) -> Mapping[str, Any]:
    """The same as plain values, for `--json`."""
    return {
        "mode": verified.mode,
        "holds": not verified.broken,
        "checks": {outcome.name: outcome.record() for outcome in verified.outcomes},
        "measured": [vars(item) | {"examples": list(item.examples)} for item in verified.measured],
        "notes": list(verified.notes),
    }
