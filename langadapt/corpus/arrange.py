"""From the spool to the three files of a corpus: boilerplate out, duplicates out, cap, split, all ordered by id."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.core.progress import Progress
from langadapt.corpus.boilerplate import Boilerplate, strip
from langadapt.corpus.clusters import near_duplicates
from langadapt.corpus.dedup import PART, each, first_of_each, places_of
from langadapt.corpus.filters import Filter
from langadapt.corpus.numbers import CHUNK
from langadapt.corpus.split import held_out
from langadapt.corpus.spool import KEPT, Spool, lost_line, text_of
from langadapt.corpus.store import DROPPED, HELD_OUT, TRAIN, gzip_writer, show_id

NearDuplicates = Literal["drop", "mark", "off"]

Places = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Plan:
    """What `write` does with the texts as a whole; `filters` judge what boilerplate leaves of a document."""

    held_out_share: float
    max_bytes: int | None = None
    near_duplicates: NearDuplicates = "drop"
    boilerplate: bool = True
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class Written:
    """What went into the two splits, and what was found on the way.

    `clusters` counts sets of near-duplicates that hold `clustered` different texts, `largest` of them in one.
    """

    documents: int
    bytes: int
    words: int
    held_out_documents: int
    held_out_bytes: int
    clusters: int
    clustered: int
    largest: int
    boilerplate: Boilerplate


# What becomes of a text.
TRAINS, HELD, DUPLICATE, NEAR, OVER, LOST = range(6)
_REASONS = {DUPLICATE: "duplicate", NEAR: "near-duplicate", OVER: "over-max-bytes"}


@dataclass(frozen=True)
class Families:
    """Texts that stand for others (`exact`: with equal text, `leader`: with similar text as well, for each place the
    one that stands for it): their places in order, how many each stands for, and the key that decides its side of the
    split."""

    exact: Places
    leader: Places
    heads: Places
    size: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]

    def of(self, places: Places) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Size and key of the family of each place; size 1 and key 0 where it has no other members."""
        leaders = self.leader[places]
        at = np.minimum(np.searchsorted(self.heads, leaders), max(0, len(self.heads) - 1))
        if not len(self.heads):
            return np.ones(len(places), np.int64), np.zeros(len(places), np.uint64)
        inside = self.heads[at] == leaders
        return np.where(inside, self.size[at], 1), np.where(inside, self.key[at], np.uint64(0))


def write(spool: Spool, folder: Path, plan: Plan, progress: Progress) -> Written:
    """Write the files of a corpus. The result does not depend on the order in which the texts came."""
    spool.settle()
    boilerplate = Boilerplate()
    if plan.boilerplate:
        boilerplate = strip(spool, _alone(spool, _exact(spool)), plan.filters, progress)
        spool.settle()
    exact = _exact(spool)
    leader, clusters, clustered, largest = exact, 0, 0, 0
    if plan.near_duplicates != "off":
        leader, clusters, clustered, largest = _alike(spool, exact, folder, progress)
    families = _families(spool, exact, leader)
    fate = _fates(spool, families, plan)
    totals = _totals(spool, fate)
    for kind, reason in _REASONS.items():
        if totals[kind].documents:
            where = _first_file(spool, fate, kind)
            spool.tally.drop(reason, totals[kind].bytes, where, documents=totals[kind].documents)
    _write_files(spool, folder, families, fate, progress)
    train, held = totals[TRAINS], totals[HELD]
    return Written(
        train.documents, train.bytes, train.words, held.documents, held.bytes, clusters, clustered, largest, boilerplate
    )


def _exact(spool: Spool) -> Places:
    return first_of_each(spool.high, spool.low, spool.ids)


def _gone(spool: Spool) -> npt.NDArray[np.uint8]:
    return np.frombuffer(spool.gone, np.uint8) if spool.gone else np.zeros(0, np.uint8)


def _pieces(count: int) -> Iterator[slice]:
    return (slice(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))


def _alone(spool: Spool, exact: Places) -> Places:
    """Places of the texts that stay when equal ones go."""
    stays = _gone(spool) == KEPT
    for piece in _pieces(len(exact)):
        stays[piece] &= exact[piece] == np.arange(piece.start, piece.stop, dtype=np.uint32)
    return places_of(stays)


def _alike(spool: Spool, exact: Places, folder: Path, progress: Progress) -> tuple[Places, int, int, int]:
    """For each place the one that stands for it and what is similar; and clusters, texts in them, the largest."""
    unique = _alone(spool, exact)
    texts = zip(each(unique), map(text_of, spool.records(unique)), strict=True)
    counted = progress.track(texts, "looking for near-duplicates", total=len(unique), unit="documents", every=100)
    leader = near_duplicates(counted, len(exact), folder)
    del unique
    joined = np.concatenate(
        [
            np.flatnonzero(leader[piece] != np.arange(piece.start, piece.stop, dtype=np.uint32)).astype(np.uint32)
            + np.uint32(piece.start)
            for piece in _pieces(len(leader))
        ]
        or [np.zeros(0, np.uint32)]
    )
    roots, members = np.unique(leader[joined], return_counts=True)
    _lead(spool, leader, np.concatenate([joined, roots]))
    for piece in _pieces(len(leader)):
        # an equal text goes where the first of its kind went, which is in its place already
        leader[piece] = leader[exact[piece]]
    largest = int(members.max(initial=0)) + 1 if len(roots) else 0
    return leader, len(roots), len(joined) + len(roots), largest


def _lead(spool: Spool, leader: Places, places: Places) -> None:
    """Let all texts of a cluster point at its longest one, of equally long ones at that with the smallest id."""
    if not len(places):
        return
    roots = leader[places]
    shortness = -spool.sizes.take(places).astype(np.int64)
    order = np.lexsort((places, spool.ids.take(places), shortness, roots))
    places, roots = places[order], roots[order]
    new = np.ones(len(roots), bool)
    new[1:] = roots[1:] != roots[:-1]
    leader[places] = places[new][np.cumsum(new) - 1]


def _families(spool: Spool, exact: Places, leader: Places) -> Families:
    """Sizes count equal copies too; the key is the smallest content hash of the texts before boilerplate went."""
    apart = _gone(spool) == KEPT
    for piece in _pieces(len(leader)):
        apart[piece] &= leader[piece] != np.arange(piece.start, piece.stop, dtype=np.uint32)
    members = places_of(apart)
    del apart
    heads, head_of = np.unique(leader[members], return_inverse=True)
    keys = spool.low if spool.origin is None else spool.origin
    key = keys.take(heads)
    np.minimum.at(key, head_of, keys.take(members))
    return Families(exact, leader, heads, np.bincount(head_of, minlength=len(heads)) + 1, key)


def _fates(spool: Spool, families: Families, plan: Plan) -> npt.NDArray[np.uint8]:
    fate = np.full(len(spool), LOST, np.uint8)
    gone = _gone(spool)
    keys = spool.low if spool.origin is None else spool.origin
    for piece in _pieces(len(fate)):
        places = np.arange(piece.start, piece.stop, dtype=np.uint32)
        sizes, key = families.of(places)
        side = held_out(np.where(sizes > 1, key, keys.part(piece.start, piece.stop)), plan.held_out_share)
        found = np.where(side, HELD, TRAINS)
        if plan.near_duplicates == "drop":
            found[families.leader[piece] != places] = NEAR
        found[families.exact[piece] != places] = DUPLICATE
        found[gone[piece] != KEPT] = LOST
        fate[piece] = found
    if plan.max_bytes is not None:
        _cap(spool, fate, plan.max_bytes)
    return fate


def _cap(spool: Spool, fate: npt.NDArray[np.uint8], max_bytes: int) -> None:
    """By content, so that a cap takes the same texts whatever else the files hold beside."""
    taken = 0
    for part, high in spool.high.split(PART):
        stays = fate[part] <= HELD
        places = part[stays]
        places = places[np.lexsort((places, spool.low.take(places), high[stays]))]
        ends = np.cumsum(spool.sizes.take(places), dtype=np.int64) + taken
        fate[places[ends > max_bytes]] = OVER
        taken = int(ends[-1]) if len(ends) else taken


@dataclass
class _Total:
    documents: int = 0
    bytes: int = 0
    words: int = 0


def _totals(spool: Spool, fate: npt.NDArray[np.uint8]) -> list[_Total]:
    totals = [_Total() for _ in range(LOST + 1)]
    for piece, sizes in spool.sizes.chunks():
        words = spool.words.part(piece.start, piece.stop)
        for kind, total in enumerate(totals):
            here = fate[piece] == kind
            total.documents += int(here.sum())
            total.bytes += int(sizes[here].sum(dtype=np.int64))
            total.words += int(words[here].sum(dtype=np.int64))
    return totals


def _first_file(spool: Spool, fate: npt.NDArray[np.uint8], kind: int) -> str:
    """The file of the first text that met this fate; kept texts do not know their line."""
    place = np.array([np.argmax(fate == kind)])
    return str(json.loads(next(spool.records(place)))["source"])


def _write_files(
    spool: Spool, folder: Path, families: Families, fate: npt.NDArray[np.uint8], progress: Progress
) -> None:
    with (
        gzip_writer(folder / TRAIN) as train,
        gzip_writer(folder / HELD_OUT) as held_out_file,
        gzip_writer(folder / DROPPED) as dropped,
    ):
        files = {TRAINS: train, HELD: held_out_file}
        lines = _lines(spool, families, fate)
        for kind, line in progress.track(lines, "writing documents", total=len(fate), unit="documents", every=100):
            files.get(kind, dropped).write(line)


def _lines(spool: Spool, families: Families, fate: npt.NDArray[np.uint8]) -> Iterator[tuple[int, bytes]]:
    """All records by id, with their fate; equal ids are the same line of two equal files, or lines and whole of one
    document: those by the rest as well. The parts are in the order of the ids."""
    gone = _gone(spool)
    for part, ids in spool.ids.split(PART):
        places = part[np.lexsort((spool.sizes.take(part), gone[part], ids))]
        for piece in _pieces(len(places)):
            here = places[piece]
            family = families.of(here)
            fates = fate[here].tolist()
            like = np.where(families.exact[here] != here, families.exact[here], families.leader[here])
            rest = (here, *family, spool.sizes.take(here), spool.ids.take(like))
            several = zip(*(each.tolist() for each in rest), strict=True)
            for kind, record, (_, size, key, length, alike) in zip(fates, spool.records(here), several, strict=True):
                if kind <= HELD:
                    yield kind, _kept(record, size, key)
                elif kind == LOST:
                    yield kind, record
                else:
                    yield kind, _dropped(record, kind, size, key, length, alike)


def _kept(line: bytes, size: int, key: int) -> bytes:
    if size == 1:
        return line
    return (canonical_json(json.loads(line) | {"cluster": show_id(key), "cluster_size": size}) + "\n").encode()


def _dropped(line: bytes, kind: int, size: int, key: int, length: int, like: int) -> bytes:
    value = json.loads(line)
    more: dict[str, object] = {"cluster": show_id(key)} if size > 1 else {}
    if kind != OVER:
        more["like"] = show_id(like)
    return lost_line(value["id"], value["source"], _REASONS[kind], value["text"], length, **more)
