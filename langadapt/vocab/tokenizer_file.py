"""tokenizer.json: read, extended without moving an id, and written as the installed library writes it."""

import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from langadapt.core.boundary import Reading
from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object, write_durably
from langadapt.model.spelling import Spelling, family_of, spelling_of
from langadapt.model.tokenizer_check import MAX_BYTES, check_tokenizer
from langadapt.model.tokenizer_check import NAME as NAME
from langadapt.vocab.splits import with_every_split

# Everything else that makes up a tokenizer folder and stays true after tokens were added. The slow forms
# (vocab.json, merges.txt) would go stale, and nothing needs them beside tokenizer.json: they are left out.
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
TEMPLATE_FOLDER = "additional_chat_templates"
# Cut at once. Two sets of held-out documents, 6 MB together, took 71 MB more when 1,000 of them were.
_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Merge:
    """One new token: `left` and `right` are the pieces that join, `id` the number of the result.

    With an empty `right` no merge makes it: a character that the vocabulary lacked, or any token of a model without
    merges. `score` is there in Unigram models only.
    """

    left: str
    right: str
    id: int
    score: float | None = None

    @property
    def piece(self) -> str:
        """The string of the new token."""
        return self.left + self.right


@dataclass(frozen=True)
class TokenizerFile:
    """A parsed tokenizer.json.

    With `ranks` (the pieces of the SentencePiece file beside it, best score first) new tokens get every merge that
    SentencePiece would do, see splits.py; without them just the one that was learned.
    """

    spec: dict[str, Any]
    place: str
    ranks: Mapping[str, int] | None = None

    @property
    def model(self) -> dict[str, Any]:
        """The `model` section."""
        section = self.spec.get("model")
        return section if isinstance(section, dict) else {}

    @cached_property
    def spelling(self) -> Spelling:
        """How its pieces stand for bytes."""
        return spelling_of(self.spec)

    @cached_property
    def added(self) -> dict[str, int]:
        """Added tokens (special or not) -> id."""
        return {token["content"]: token["id"] for token in self.spec.get("added_tokens") or []}

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Tokens of the model -> id. (A Unigram model stores a list of pieces with scores; the id is the place.)"""
        section: Any = self.model["vocab"]
        return section if isinstance(section, dict) else {entry[0]: id for id, entry in enumerate(section)}

    @cached_property
    def unknown(self) -> int | None:
        """Id of the token for what a Unigram or WordPiece model cannot spell; None for BPE, which spells bytes."""
        kind = family_of(self.spec)
        if kind == "wordpiece":
            return self.vocab.get(self.model.get("unk_token") or "")
        return self.model.get("unk_id") if kind == "unigram" else None

    @cached_property
    def pieces(self) -> dict[str, int]:
        """Every token of the model and every added one -> id."""
        vocab = self.vocab
        # most vocabularies name the added ones: a second table of a large one takes 20 MB
        return vocab if all(vocab.get(piece) == id for piece, id in self.added.items()) else vocab | self.added

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """The merges in rank order; both spellings are read: `["a", "b"]` and `"a b"`."""
        listed = self.model.get("merges") or []
        if all(isinstance(merge, tuple) for merge in listed):
            return listed  # as `read` and `without` leave them
        # the vocabulary's own strings: others of the same text would take 70 MB in a vocabulary of 262,144
        own = {piece: piece for piece in self.vocab}
        pairs = []
        for rank, merge in enumerate(listed):
            parts = merge.split(" ") if isinstance(merge, str) else merge
            if len(parts) != 2:
                raise DataError(f"merge {rank} is `{merge}`, not a pair", where=self.place)
            pairs.append((own.get(parts[0], parts[0]), own.get(parts[1], parts[1])))
        return pairs

    @cached_property
    def lowest_score(self) -> float:
        """Unigram: the lowest score of a piece that is no added token; unknown characters cost that much and 10."""
        return min(float(score) for piece, score in self.model["vocab"] if piece not in self.added)

    @cached_property
    def next_id(self) -> int:
        """The id after the largest one in use, added tokens included."""
        return max(self.pieces.values()) + 1

    @property
    def ignore_merges(self) -> bool:
        """Is a whole pre-token that the vocabulary has emitted without looking at merges?"""
        return bool(self.model.get("ignore_merges"))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The working tokenizer, without truncation or padding."""
        return _parse(json.dumps(self.spec), self.place)

    @cached_property
    def pre_tokenizer(self) -> Any:
        """What cuts a text into words, None without one; made without the vocabulary, so it costs nothing."""
        return pre_tokenizer_of(self.spec.get("pre_tokenizer"))

    def let_go(self) -> None:
        """Drop the tokenizers that were made of this file: a large vocabulary's take 100 MB each. They come again."""
        for name in ("tokenizer", "_own_stage"):
            self.__dict__.pop(name, None)

    @cached_property
    def added_pattern(self) -> re.Pattern[str] | None:
        """Matches what the added tokens take out of a text before it is pre-tokenised; None if there are none."""
        parts = []
        for token in sorted(self.spec.get("added_tokens") or [], key=lambda item: (-len(item["content"]), item["id"])):
            text = re.escape(token["content"])
            if token.get("single_word"):
                text = rf"(?<!\w){text}(?!\w)"
            parts.append((r"\s*" if token.get("lstrip") else "") + text + (r"\s*" if token.get("rstrip") else ""))
        return re.compile("|".join(parts)) if parts else None

    def model_stage(self, extra: Sequence[Merge] = (), *, ignore_merges: bool | None = None) -> Tokenizer:
        """Only the model, as if `extra` had been added: takes a pre-token in its printable form, gives its ids."""
        if not extra and ignore_merges is None:
            return self._own_stage
        model = self._grown_model(extra)
        if ignore_merges is not None:
            model["ignore_merges"] = ignore_merges
        return _parse(json.dumps({"version": "1.0", "added_tokens": [], "model": model}), self.place)

    @cached_property
    def _own_stage(self) -> Tokenizer:
        return _parse(json.dumps({"version": "1.0", "added_tokens": [], "model": self.model}), self.place)

    def extended(self, extra: Sequence[Merge]) -> str:
        """The text of the new tokenizer.json: same sections, `extra` appended to vocabulary and merges.

        Added tokens that only the `added_tokens` list names are numbered on load from the size of the vocabulary
        (Llama 3 is laid out like this), so they would move as soon as it grows: they are named in it too.
        """
        model = self._grown_model(extra)
        if isinstance(model["vocab"], dict):
            for content, number in self.added.items():
                model["vocab"].setdefault(content, number)
            model["vocab"] = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
        spec = self.spec | {"model": model}
        return str(Tokenizer.from_str(json.dumps(spec)).to_str(pretty=True))

    def without(self, pieces: Collection[str]) -> "TokenizerFile":
        """The same tokenizer without some tokens, added ones too, and without the merges that make them.

        All other ids stay, so the missing ones are holes; where ids are places in a list, a stand-in has each. Added
        tokens are named in the vocabulary, see `extended`.
        """
        if not pieces:
            return self
        gone = set(pieces)
        added = [token for token in self.spec.get("added_tokens") or [] if token["content"] not in gone]
        if not isinstance(self.model["vocab"], dict):
            lowest = self.lowest_score
            listed = [[stand_in(id), lowest] if entry[0] in gone else entry for id, entry in enumerate(self.scored)]
            model = self.model | {"vocab": listed}
            return TokenizerFile(self.spec | {"model": model, "added_tokens": added}, self.place)
        vocab = dict(self.model["vocab"])
        for content, number in self.added.items():
            vocab.setdefault(content, number)
        model = self.model | {"vocab": {piece: number for piece, number in vocab.items() if piece not in gone}}
        if "merges" in model:
            model["merges"] = [pair for pair in self.merges if pair[0] + pair[1] not in gone]
        ranks = None if self.ranks is None else {piece: at for piece, at in self.ranks.items() if piece not in gone}
        return replace(self, spec=self.spec | {"model": model, "added_tokens": added}, ranks=ranks)

    def _grown_model(self, extra: Sequence[Merge]) -> dict[str, Any]:
        if not isinstance(self.model["vocab"], dict):
            listed = self.scored
            for new in sorted(extra, key=lambda one: one.id):
                # an id within the list is one that was given up: its stand-in goes
                listed[new.id : new.id + 1] = [[new.piece, new.score]]
            return self.model | {"vocab": listed}
        vocab = dict(self.model["vocab"]) | {merge.piece: merge.id for merge in extra}
        if "merges" not in self.model:
            return self.model | {"vocab": vocab}
        if self.ranks is not None:
            merges = with_every_split(self.merges, [merge.piece for merge in extra], self.ranks)
        else:
            merges = [*self.merges, *((merge.left, merge.right) for merge in extra if merge.right)]
        return self.model | {"vocab": vocab, "merges": merges}

    @property
    def scored(self) -> list[list[Any]]:
        """Pieces with scores (Unigram), and behind them the added tokens that only their list names, so that ids fit.

        They get the lowest score there is: a lower one would change the cost of unknown characters, which is
        reckoned from it, and a higher one could make the model emit them for text.
        """
        vocab: list[list[Any]] = list(self.model["vocab"])
        lowest = min(entry[1] for entry in vocab)
        behind = sorted((id, content) for content, id in self.added.items() if id >= len(vocab))
        return [*vocab, *([content, lowest] for _, content in behind)]


def stand_in(id: int) -> str:
    """What holds the place of a token that was given up in a list of pieces, until a new token takes it.

    Two characters for private use, which no text has side by side; no digits, for which rules look.
    """
    return chr(0xF0000 + id // 1000) + chr(0x100000 + id % 1000)


def pre_tokenizer_of(section: Any) -> Any:
    """The pre-tokenizer that a section of a tokenizer.json describes."""
    empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return Tokenizer.from_str(json.dumps(empty | {"pre_tokenizer": section})).pre_tokenizer


def _parse(text: str, place: str) -> Tokenizer:
    with Reading(f"the tokenizers library cannot load `{place}`"):
        tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read(folder: Path) -> TokenizerFile:
    """Read `folder`/tokenizer.json; DataError if it is missing, broken, or gives one id to two tokens."""
    path = folder / NAME
    if not path.is_file():
        raise DataError(
            f"`{folder}` has no {NAME}",
            hint="load it with transformers.AutoTokenizer and save it again with save_pretrained: that writes one",
        )
    check_tokenizer(folder)
    file = TokenizerFile(read_json_object(path, max_bytes=MAX_BYTES), str(path))
    if "merges" in file.model:
        file.model["merges"] = file.merges
    vocab = file.model["vocab"]
    if len(vocab) != len(file.vocab):
        twice = next(entry[0] for id, entry in enumerate(vocab) if file.vocab[entry[0]] != id)
        raise DataError(f"its vocabulary has `{twice}` twice", where=str(path))
    taken: dict[int, str] = {}
    for piece, number in file.pieces.items():
        other = taken.setdefault(number, piece)
        if other != piece:
            raise DataError(f"id {number} belongs to both `{other}` and `{piece}`", where=str(path))
    return file


def write(
    base: TokenizerFile, extra: Sequence[Merge], base_folder: Path, out: Path, *, gone: Collection[str] = ()
) -> None:
    """Write a whole tokenizer folder: the extended tokenizer.json, and its companions without `gone` tokens."""
    write_durably(out / NAME, base.extended(extra))
    for name in COMPANIONS:
        source = base_folder / name
        if source.is_file() and gone and source.suffix == ".json":
            write_durably(out / name, json.dumps(_without(read_json_object(source), set(gone)), indent=2) + "\n")
        elif source.is_file():
            shutil.copyfile(source, out / name)
    if (base_folder / TEMPLATE_FOLDER).is_dir():
        (out / TEMPLATE_FOLDER).mkdir()
        for path in sorted((base_folder / TEMPLATE_FOLDER).glob("*.jinja")):
            shutil.copyfile(path, out / TEMPLATE_FOLDER / path.name)


def _without(value: Any, gone: set[str]) -> Any:
    """Settings of a tokenizer without the lists' and tables' entries for tokens that are gone.

    transformers would add such a token again, at the end, and the ids would disagree with the model's table. Its T5
    class makes as many `<extra_id_N>` as the settings say.
    """
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in gone and not _is_gone(item, gone)}
        if type(kept.get("extra_ids")) is int:
            kept["extra_ids"] -= sum(piece.startswith("<extra_id_") for piece in gone)
        return {key: _without(item, gone) for key, item in kept.items()}
    if isinstance(value, list):
        return [_without(item, gone) for item in value if not _is_gone(item, gone) and item not in tuple(gone)]
    return value


def _is_gone(entry: Any, gone: set[str]) -> bool:
    return isinstance(entry, dict) and entry.get("content") in gone


def encode_all(tokenizer: Tokenizer, texts: Sequence[str], *, batch: int = 20_000) -> Iterable[list[int]]:
    """Ids of each text in order, no special tokens added; at most `batch` texts and a few characters at once."""
    for part in _batches(texts, batch):
        for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=False):
            yield encoding.ids


def _batches(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The library's results take 50 bytes a character of text and more, and words are short but documents are not."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) >= most or size + len(text) > _BATCH_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part
