"""The same sums as in another model: the row map of its sibling, applied to this one"""

import numpy as np

from langadapt.core.config import Options as BaseOptions
from langadapt.core.errors import DataError
from langadapt.core.registry import method
from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.stored import StoredMaps, vocabulary_digest
from langadapt.embed.types import Ints


class Options(BaseOptions):
    """This method has no options."""


@method(needs=("like", "base_tokenizer"), laws=("local",), cite="the row map that init-embeddings stores")
def reapply(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = its line in the stored map times the base table at hand, noise drawn by the same streams.

    Lines that are no sums of old rows do not change with the base table. Tokens that the map lacks get the mean of
    their pieces.
    """
    rows = RowMapBuilder(inputs, "reapply")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    like = inputs.like()
    source = like.map_for(inputs.role)
    _check_vocabulary(inputs, like, source)
    line_of = {(str(note["piece"]), str(note["hex"])): line for line, note in enumerate(source.provenance)}
    lines = [line_of.get((token.piece, token.content.hex()), -1) for token in tokens]
    dense: set[int] = {line for part in source.dense for line in part.lines.tolist()}
    borrowed = inputs.role == "head" and "head" not in like.maps
    usable = [line >= 0 and not (borrowed and line in dense) for line in lines]
    taken = [(token, line) for token, line, there in zip(tokens, lines, usable, strict=True) if there]
    _check_width(inputs, like, source, {line for _, line in taken})
    places = np.array([line for _, line in taken], dtype=np.int64)
    rows.stored([token for token, _ in taken], source, places)
    left = [token for token, there in zip(tokens, usable, strict=True) if not there]
    _say(inputs, like, left, fixed := len(dense.intersection(places.tolist())))
    spelled(rows, inputs, left, "not in the stored map")
    rows.measured(applied_again=len(taken), unchanged_rows=fixed)
    return rows.build()


def _check_vocabulary(inputs: InitInputs, like: StoredMaps, source: RowMap) -> None:
    """DataError if the map's old ids are those of another vocabulary than the base's."""
    hint = "a sibling has the vocabulary of the base that the map was made for: an instruct or chat model of it"
    if not np.array_equal(source.population, inputs.population):
        raise DataError(
            f"the row map of `{like.folder}` is for a base with {len(source.population):,} text tokens, this one has "
            f"{len(inputs.population):,} or has them under other ids",
            hint=hint,
        )
    for line, note in enumerate(source.provenance):
        ids, pieces = _named(source, line), note.get("pieces", ())
        for id, piece in zip(ids.tolist(), pieces, strict=False):
            if inputs.base.piece(id) != piece:
                raise DataError(
                    f"the row map of `{like.folder}` knows token {id} as `{piece}`, this base as "
                    f"`{inputs.base.piece(id)}`",
                    hint=hint,
                )
    if like.vocabulary not in (None, vocabulary_digest(inputs.base, inputs.population)):
        raise DataError(f"the base of `{like.folder}` had other text tokens under these ids", hint=hint)


def _named(source: RowMap, line: int) -> Ints:
    """Old ids of a line in the order in which its provenance names them; none for a long line, which names some."""
    ids = source.indices[source.indptr[line] : source.indptr[line + 1]]
    named: Ints = ids[ids != source.old_rows]
    return named[:0] if "of" in source.provenance[line] else named


def _check_width(inputs: InitInputs, like: StoredMaps, source: RowMap, lines: set[int]) -> None:
    width = inputs.base_rows(slice(0, 1)).shape[1]
    for part in source.dense:
        own = (part.vectors if part.matrix is None else part.matrix).shape[1]
        if own != width and lines.intersection(part.lines.tolist()):
            raise DataError(
                f"the row map of `{like.folder}` holds rows that are {own:,} wide, those of the model are {width:,}",
                hint="such rows cannot be made again for another width: run the method itself on this model",
            )


def _say(inputs: InitInputs, like: StoredMaps, left: list[NewToken], fixed: int) -> None:
    if fixed:
        inputs.progress.note(
            f"{fixed:,} rows are no sums of old rows: they are those of `{like.folder.name}`, "
            "and do not change with the sibling"
        )
    if left:
        inputs.progress.warn(
            f"{len(left):,} new tokens are not in the row map of `{like.folder.name}`, such as `{left[0].piece}`: "
            "they get the mean of their pieces"
        )
