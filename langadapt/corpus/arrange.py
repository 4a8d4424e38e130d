"""From the spool to the three files of a corpus: boilerplate out, duplicates out, cap, split, all ordered by id."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.core.progress import Progress
from langadapt.corpus.boilerplate import Boilerplate, strip
from langadapt.corpus.clusters import near_duplicates
from langadapt.corpus.dedup import each, first_of_each
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
        boilerplate = strip(spool, np.flatnonzero(_alone(spool, _exact(spool))), plan.filters, progress)
        spool.settle()
    exact = _exact(spool)
    unique = np.flatnonzero(_alone(spool, exact)).astype(np.uint32)
    leader = exact.copy()
    clusters = clustered = largest = 0
    if plan.near_duplicates != "off":
        counted = progress.track(each(unique), "looking for near-duplicates", total=len(unique), unit="documents")
        texts = ((number, spool.text(place)) for number, place in enumerate(counted))
        root = near_duplicates(texts, len(unique), folder)
        members = np.bincount(root, minlength=1)
        clusters, clustered = int((members > 1).sum()), int(members[members > 1].sum())
        largest = int(members.max(initial=0)) if clusters else 0
        _lead(spool, leader, unique, root, members)
        leader = leader[exact]
    families = _families(spool, exact, leader)
    kept = spool.column("gone") == KEPT
    alone = np.arange(len(exact), dtype=np.uint32)
    stays = kept & ((leader if plan.near_duplicates == "drop" else exact) == alone)
    over = _over(spool, stays, plan.max_bytes)
    held = held_out(families.key[families.leader], plan.held_out_share)
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


def _lead(spool: Spool, leader: Places, unique: Places, root: Places, members: npt.NDArray[Any]) -> None:
    """Let all texts of a cluster point at its longest one, of equally long ones at that with the smallest id."""
    several = np.flatnonzero(members[root] > 1)
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
    """Sizes count equal copies too; the key is the smallest content hash of the texts before boilerplate went."""
    key = spool.column("low" if spool.origin is None else "origin").copy()
    apart = np.flatnonzero((leader != np.arange(len(leader), dtype=np.uint32)) & (spool.column("gone") == KEPT))
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
    # equal ids are the same line of two equal files, or lines and whole of one document: order by the rest as well
    order = np.lexsort((spool.column("sizes"), spool.column("gone"), spool.column("ids")))
    with (
        gzip_writer(folder / TRAIN) as train,
        gzip_writer(folder / HELD_OUT) as held_out_file,
        gzip_writer(folder / DROPPED) as dropped,
    ):
        for place in progress.track(each(order), "writing documents", total=len(order), unit="documents"):
            line = spool.record(place)
            if spool.gone[place] != KEPT:
                dropped.write(line)
            elif final[place]:
                _kept(line, place, families, held_out_file if held[place] else train)
            else:
                dropped.write(_dropped(spool, line, place, families, over=bool(over[place])))


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
