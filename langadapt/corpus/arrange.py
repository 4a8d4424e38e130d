"""From the spool to the three files of a corpus: boilerplate out, duplicates out, cap, split, all ordered by id."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.core.progress import Progress
from langadapt.corpus.boilerplate import Boilerplate, strip
from langadapt.corpus.clusters import near_duplicates
from langadapt.corpus.dedup import PART, each, first_of_each, parts, places_of
from langadapt.corpus.filters import Filter
from langadapt.corpus.split import held_out
from langadapt.corpus.spool import KEPT, Spool, lost_line
from langadapt.corpus.store import DROPPED, HELD_OUT, TRAIN, gzip_writer, show_id

NearDuplicates = Literal["drop", "mark", "off"]

Places = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


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


@dataclass(frozen=True)
class Families:
    """For each place the one that stands for it (`exact`: with equal text, `leader`: with similar text as well), and
    for each leader how many texts it stands for and the key that decides its side of the split."""

    exact: Places
    leader: Places
    size: Places
    key: npt.NDArray[np.uint64]


def write(spool: Spool, folder: Path, plan: Plan, progress: Progress) -> Written:
    """Write the files of a corpus. The result does not depend on the order in which the texts came."""
    spool.settle()
    boilerplate = Boilerplate()
    if plan.boilerplate:
        boilerplate = strip(spool, places_of(_alone(spool, _exact(spool))), plan.filters, progress)
        spool.settle()
    exact = _exact(spool)
    if plan.max_bytes is None:
        spool.high = array("Q")  # only the order of a cap needs it from here on
    leader, clusters, clustered, largest = exact, 0, 0, 0
    if plan.near_duplicates != "off":
        leader, clusters, clustered, largest = _alike(spool, exact, folder, progress)
    kept = spool.column("gone") == KEPT
    alone = np.arange(len(exact), dtype=np.uint32)
    stays = kept & ((leader if plan.near_duplicates == "drop" else exact) == alone)
    over = _over(spool, stays, plan.max_bytes)
    families = _families(spool, exact, leader)
    held = np.empty(len(leader), bool)
    for at in range(0, len(leader), PART):
        piece = slice(at, at + PART)
        held[piece] = held_out(families.key[leader[piece]], plan.held_out_share)
    for name, mask in (
        ("duplicate", kept & (exact != alone)),
        ("near-duplicate", kept & (exact == alone) & ~stays),
        ("over-max-bytes", over),
    ):
        if mask.any():
            spool.tally.drop(name, int(spool.column("sizes")[mask].sum()), "", documents=int(mask.sum()))
    final = stays & ~over
    _write_files(spool, folder, families, final, over, held, progress)
    train, out = final & ~held, final & held
    sizes, words = spool.column("sizes"), spool.column("words")
    return Written(
        int(train.sum()), int(sizes[train].sum(dtype=np.int64)), int(words[train].sum(dtype=np.int64)),
        int(out.sum()), int(sizes[out].sum(dtype=np.int64)), clusters, clustered, largest, boilerplate,
    )  # fmt: skip


def _exact(spool: Spool) -> Places:
    return first_of_each(spool.column("high"), spool.column("low"), spool.column("ids"))


def _alone(spool: Spool, exact: Places) -> Mask:
    alone: Mask = exact == np.arange(len(exact), dtype=np.uint32)
    kept: Mask = alone & (spool.column("gone") == KEPT)
    return kept


def _alike(spool: Spool, exact: Places, folder: Path, progress: Progress) -> tuple[Places, int, int, int]:
    """For each place the one that stands for it and what is similar; and clusters, texts in them, the largest."""
    unique = places_of(_alone(spool, exact))
    counted = progress.track(each(unique), "looking for near-duplicates", total=len(unique), unit="documents")
    texts = ((number, spool.text(place)) for number, place in enumerate(counted))
    root = near_duplicates(texts, len(unique), folder)
    members = np.zeros(len(unique), np.uint32)
    np.add.at(members, root, 1)
    several = members > 1
    leader = exact.copy()
    _lead(spool, leader, unique, root, members)
    largest = int(members.max(initial=0)) if several.any() else 0
    return leader[exact], int(several.sum()), int(members[several].sum(dtype=np.int64)), largest


def _lead(spool: Spool, leader: Places, unique: Places, root: Places, members: npt.NDArray[Any]) -> None:
    """Let all texts of a cluster point at its longest one, of equally long ones at that with the smallest id."""
    several = places_of(members[root] > 1)
    if not len(several):
        return
    places, roots = unique[several], root[several]
    shortness = -spool.column("sizes")[places].astype(np.int64)
    order = np.lexsort((places, spool.column("ids")[places], shortness, roots))
    places, roots = places[order], roots[order]
    new = np.ones(len(roots), bool)
    new[1:] = roots[1:] != roots[:-1]
    leader[places] = places[new][np.cumsum(new) - 1]


def _families(spool: Spool, exact: Places, leader: Places) -> Families:
    """Sizes count equal copies too; the key is the smallest content hash of the texts before boilerplate went.

    The keys take the place of the spool's hashes, which nothing needs after this.
    """
    key = spool.column("low" if spool.origin is None else "origin")
    apart = places_of((leader != np.arange(len(leader), dtype=np.uint32)) & (spool.column("gone") == KEPT))
    size = np.ones(len(leader), np.uint32)
    np.add.at(size, leader[apart], 1)
    np.minimum.at(key, leader[apart], key[apart])
    return Families(exact, leader, size, key)


def _over(spool: Spool, stays: Mask, max_bytes: int | None) -> Mask:
    over = np.zeros(len(stays), bool)
    if max_bytes is not None:
        places = np.flatnonzero(stays)
        # by content, so that a cap takes the same texts whatever else the files hold beside
        by_content = places[np.lexsort((spool.column("low")[places], spool.column("high")[places]))]
        over[by_content[np.cumsum(spool.column("sizes")[by_content], dtype=np.int64) > max_bytes]] = True
    return over


def _write_files(
    spool: Spool, folder: Path, families: Families, final: Mask, over: Mask, held: Mask, progress: Progress
) -> None:
    with (
        gzip_writer(folder / TRAIN) as train,
        gzip_writer(folder / HELD_OUT) as held_out_file,
        gzip_writer(folder / DROPPED) as dropped,
    ):
        for place in progress.track(_by_id(spool), "writing documents", total=len(final), unit="documents"):
            line = spool.record(place)
            if spool.gone[place] != KEPT:
                dropped.write(line)
            elif final[place]:
                _kept(line, place, families, held_out_file if held[place] else train)
            else:
                dropped.write(_dropped(spool, line, place, families, over=bool(over[place])))


def _by_id(spool: Spool) -> Iterator[int]:
    """All places by id; equal ids are the same line of two equal files, or lines and whole of one document: those by
    the rest as well. The parts are in the order of the ids."""
    ids, gone, sizes = spool.column("ids"), spool.column("gone"), spool.column("sizes")
    for part in parts(ids):
        yield from each(part[np.lexsort((sizes[part], gone[part], ids[part]))])


def _kept(line: bytes, place: int, families: Families, file: IO[bytes]) -> None:
    leader = families.leader[place]
    size = int(families.size[leader])
    if size > 1:
        found = {"cluster": show_id(int(families.key[leader])), "cluster_size": size}
        line = (canonical_json(json.loads(line) | found) + "\n").encode()
    file.write(line)


def _dropped(spool: Spool, line: bytes, place: int, families: Families, *, over: bool) -> bytes:
    value = json.loads(line)
    leader = int(families.leader[place])
    exact = int(families.exact[place])
    more: dict[str, object] = {}
    if families.size[leader] > 1:
        more["cluster"] = show_id(int(families.key[leader]))
    if over:
        reason = "over-max-bytes"
    else:
        reason = "duplicate" if exact != place else "near-duplicate"
        more["like"] = show_id(spool.ids[exact if exact != place else leader])
    return lost_line(value["id"], value["source"], reason, value["text"], spool.sizes[place], **more)
