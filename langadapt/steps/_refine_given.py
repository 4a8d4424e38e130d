"""What refine-embeddings works on: the new tokens, the teacher and its way to cut text, snippets of both parts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.progress import Progress
from langadapt.steps._vocabulary import read

if TYPE_CHECKING:
    import torch

    from langadapt.embed.snippets import Cut, Snippets
    from langadapt.evaluate.segments import ScoringSet

_MADE = "make it with init-embeddings, and refine before cpt"


@dataclass(frozen=True)
class Given:
    """Ids of the new tokens; the two tokenizers; the teacher's table if it is not the model's own."""

    new_ids: tuple[int, ...]
    tokenizer: Any
    old_tokenizer: Any
    old_table: "torch.Tensor | None"

    def cuts(self) -> "tuple[Callable[[str], Cut], Callable[[str], Cut]]":
        """How the new and the old tokenizer cut a text."""
        return _cutter(self.tokenizer), _cutter(self.old_tokenizer)


def _cutter(tokenizer: Any) -> "Callable[[str], Cut]":
    from langadapt.model.spans import PieceReader, spans

    reader = PieceReader.of(tokenizer)

    def cut(text: str) -> "Cut":
        found = spans(tokenizer, text, reader)
        return found.ids, found.ends

    return cut


def open_given(inputs: Inputs) -> Given:
    """Find new tokens, tokenizers and teacher. DataError says what is missing or does not fit together."""
    from langadapt.embed.rowmap import MAP_FILE, load_maps
    from langadapt.model.kinds import require_causal
    from langadapt.model.load import load_tokenizer
    from langadapt.model.old_tokenizer import without_tokens

    model = one(inputs, "model")
    require_causal(model.path, "`refine-embeddings`")
    if not (model.path / MAP_FILE).is_file():
        raise DataError(f"`{model.given}` has no row map, so nothing says which of its rows are new", hint=_MADE)
    new_ids = tuple(load_maps(model.path)["input"].new_ids.tolist())
    if not new_ids:
        raise DataError(f"`{model.given}` has no new tokens: there is nothing to refine")
    teacher = inputs.get("teacher")
    tokenizer = load_tokenizer(model.path)
    if isinstance(teacher, Input):
        table = _table_of(teacher, model)
        return Given(new_ids, tokenizer, load_tokenizer(teacher.path), table)
    dropped = int(model.facts.get("dropped", 0))
    if dropped:
        raise DataError(
            f"`{model.given}` lacks {dropped:,} tokens of its base, so it cannot read text as the base did",
            hint="give the base model as the teacher: `--teacher BASE`",
        )
    return Given(new_ids, tokenizer, without_tokens(model.path, new_ids), None)


def _table_of(teacher: Input, model: Input) -> "torch.Tensor":
    """The teacher's input table. DataError unless the two differ in their tables alone: one body serves both."""
    from langadapt.embed.checks import same_bits
    from langadapt.model.tables import open_tables

    old, new = open_tables(teacher.path), open_tables(model.path)
    own = old.own_tensors() | new.own_tensors()
    for name in sorted((old.weights.tensors.keys() | new.weights.tensors.keys()) - own):
        there = name in old.weights.tensors and name in new.weights.tensors
        if not there or not same_bits(old.weights.read(name), new.weights.read(name)):
            raise DataError(
                f"`{teacher.given}` is not what `{model.given}` was made from: they differ in `{name}`",
                where="teacher",
                hint="give the model that init-embeddings was given",
            )
    return old.weights.read(old.stored.input)


def snippets_of(
    given: Given,
    corpus: Input,
    progress: Progress,
    *,
    each: int,
    tokens: int,
    most_bytes: int,
    held_out: int,
) -> "tuple[Snippets, Snippets | None]":
    """Snippets to learn from, and some of held-out texts; None where the corpus holds out nothing to use."""
    from langadapt.embed.snippets import find_snippets

    new, old = given.cuts()
    texts = progress.track(read(corpus, "train", most_bytes), "finding snippets", unit="documents")
    learned = find_snippets(texts, new, old, given.new_ids, each=each, tokens=tokens)
    seen = [id for id, count in learned.counts.items() if count]
    if not held_out:
        return learned, None
    try:
        texts = progress.track(read(corpus, "held-out", most_bytes), "finding held-out snippets", unit="documents")
        return learned, find_snippets(texts, new, old, seen, each=each, tokens=tokens, most=held_out)
    except DataError:
        return learned, None


def check_lengths(
    folder: Path,
    given: Given,
    snippets: "Iterable[Snippets | None]",
    sets: "Mapping[str, ScoringSet]",
    context_bytes: int,
) -> None:
    """DataError if a snippet, or a window of the texts that are scored, has more tokens than the model positions."""
    from langadapt.model.facts import check_positions, position_limit
    from langadapt.model.score import check_windows

    longest = 1 + max(length for found in snippets if found is not None for length in found.longest())
    check_positions(folder, longest, "a snippet has", "`-o snippet_tokens` makes them shorter, at most {0:,} tokens")
    for chosen in sets.values():
        check_windows(position_limit(folder), given.tokenizer, chosen.scored_texts(context_bytes))


def prefix_of(given: Given, name: str) -> tuple[int, int]:
    """Ids of the token that opens each text, in the new and in the old tokenizer; DataError if one lacks it."""
    ids = [tokenizer.get_vocab().get(name) for tokenizer in (given.tokenizer, given.old_tokenizer)]
    if None in ids:
        raise DataError(
            f"the teacher has no token `{name}` to open a text with",
            hint="name one that both have: `-o document_separator=TOKEN`",
        )
    return int(ids[0]), int(ids[1])


def seen_ids(counts: dict[int, int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Ids of the tokens that at least one snippet holds, ascending."""
    return np.array(sorted(id for id, count in counts.items() if count), dtype=np.int64)
