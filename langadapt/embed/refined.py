"""A model whose new rows were refined: its row map with a note at each row, and what must hold for the saved folder."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from langadapt.core.io import read_json_lines, write_json_lines
from langadapt.embed.checks import Check, insist, same_bits, usual_norms
from langadapt.embed.rowmap import MAP_FILE, PROVENANCE_FILE
from langadapt.model.tables import Tables


def write_record(base: Path, folder: Path, counts: Mapping[int, int], tables: Collection[str]) -> None:
    """Hand on the row map, and note in the provenance which rows are no longer what the map says.

    `counts` are the snippets that a refined token stood in; `tables` are those whose rows moved (`input`, `head`).
    The map itself stays that of init-embeddings: applied again it gives the rows as they were before.
    """
    shutil.copyfile(base / MAP_FILE, folder / MAP_FILE)
    lines = []
    for note in read_json_lines(base / PROVENANCE_FILE):
        # what an earlier refinement moved stays moved
        moved = note["table"] in tables and note["id"] in counts
        lines.append({**note, "refined": {"snippets": counts[note["id"]]}} if moved else note)
    write_json_lines(folder / PROVENANCE_FILE, lines)


def check_refined(given: Tables, saved: Tables, ids: Mapping[str, Sequence[int]]) -> list[Check]:
    """Compare the folder as it was written with the one it was made from, write `checks.json`.

    `ids` are the rows that may differ, by table. LangadaptError if a check that must hold failed.
    """
    # a tied head that is stored all the same follows its table
    own = {name for name in (given.stored.input, given.stored.head) if name is not None} | set(given.copies)
    changed = [
        name
        for name in sorted(given.weights.tensors.keys() | saved.weights.tensors.keys())
        if name not in own
        and not (
            name in given.weights.tensors
            and name in saved.weights.tensors
            and same_bits(given.weights.read(name), saved.weights.read(name))
        )
    ]
    checks = [
        Check("input and head are tied as before", saved.tied == given.tied, saved.tied),
        Check("all other tensors are the same bytes", not changed, changed[:8] or None),
    ]
    named = {"input": given.stored.input, "head": given.stored.head}
    for table, name in named.items():
        if name is not None:
            before, after = given.weights.read(name), saved.weights.read(name)
            text = torch.from_numpy(given.tokens.text_ids())
            checks += _rows(table, before, after, list(ids.get(table, ())), text)
    insist(checks, saved.folder)
    return checks


def _rows(table: str, before: torch.Tensor, after: torch.Tensor, ids: list[int], text: torch.Tensor) -> list[Check]:
    still = torch.ones(before.shape[0], dtype=torch.bool)
    still[ids] = False
    checks = [
        Check(f"{table}: all other rows are the same bits", same_bits(before[still], after[still])),
        Check(f"{table}: rows are finite", bool(torch.isfinite(after).all())),
    ]
    if not ids:
        return checks
    others = text[still[text]]
    norms, old = after[ids].float().norm(dim=1), before[others].float().norm(dim=1)
    moved = (after[ids].float() - before[ids].float()).norm(dim=1) / before[ids].float().norm(dim=1).clamp(min=1e-12)
    return [
        *checks,
        Check(f"{table}: no refined row is zero", bool((norms > 0).all())),
        usual_norms(table, norms, old),
        Check(
            f"{table}: median length a row moved, as a share of its norm", True, round(float(moved.median()), 4), False
        ),
    ]
