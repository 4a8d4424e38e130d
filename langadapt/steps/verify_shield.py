"""Did training leave alone what it had to? Two model folders compared bit by bit. Plain functions: nothing is kept."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, digest_of
from langadapt.core.progress import Progress
from langadapt.core.types import Slice, Table
from langadapt.model.layer_names import layer_and_kind
from langadapt.steps._cpt_choice import RECORD

if TYPE_CHECKING:
    from langadapt.model.shield import Drift


@dataclass(frozen=True)
class Shielded:
    """The drift of every stored tensor, and what it was held against; `notes` are for people."""

    drifts: "Mapping[str, Drift]"
    tuned: Path
    against: str
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> int:
        """Shielded values that differ."""
        return sum(drift.broken for drift in self.drifts.values())


def verify_shield(
    base: str, tuned: str, selection: Path | None = None, *, progress: Progress | None = None
) -> Shielded:
    """Compare `tuned` with the model that its training began with.

    What may differ says `selection`, or the record that cpt left. DataError: there is neither, or the selection is of
    another model; the files cannot be compared.
    """
    from langadapt.model.shield import compare

    progress = progress or Progress()
    one, other = _model(base, progress), _model(tuned, progress)
    notes = []
    if other.artifact is not None and not other.made_from(one):
        notes.append(f"`{tuned}` does not say that it was made from `{base}`; they are compared all the same")
    names, slices, against = _free(one, other, selection)
    return Shielded(compare(one.path, other.path, names, slices, progress=progress), other.path, against, tuple(notes))


def _model(given: str, progress: Progress) -> Input:
    from langadapt.core.verified import verify_content
    from langadapt.model.load import resolve

    if not given.strip():
        raise DataError("the name of a model is empty", hint="is a variable of the shell not set?")
    path = resolve(given, progress)
    if is_artifact(path):
        artifact = open_artifact(path, "model")
        verify_content(artifact)
        return Input(given, path, artifact, artifact.digest, artifact.facts)
    if not path.exists():
        open_artifact(path)
    return Input(given, path, None, digest_of(path), {})


def _free(base: Input, tuned: Input, given: Path | None) -> tuple[Collection[str], Mapping[str, Slice], str]:
    """What was free to move: whole tensors, parts of others, and where that is said."""
    from langadapt.core.verified import verify_content
    from langadapt.model.empty import empty_model
    from langadapt.select.selection import check_model, read_selection
    from langadapt.steps._strategy import selection_in

    shapes = {name: tuple(value.shape) for name, value in empty_model(base.path).named_parameters()}
    if given is not None:
        artifact = open_artifact(given, "selection")
        verify_content(artifact)
        chosen = Input(str(given), given, artifact, artifact.digest, artifact.facts)
        found, place = selection_in(chosen, base, shapes), given
    else:
        place = tuned.path / RECORD
        if not place.is_dir() and "shield" not in tuned.facts and tuned.facts.get("strategy") == "full":
            return shapes.keys(), {}, "strategy `full`, which shields nothing"
        if not place.is_dir():
            raise DataError(
                f"`{tuned.given}` does not say what was allowed to move", hint="give the selection: --selection DIR"
            )
        found = read_selection(place)
        check_model(found, shapes, str(place))
    return found.names, found.slices, f"`{place}`"


def by_kind(drifts: "Mapping[str, Drift]") -> "dict[str, Drift]":
    """The same summed over layers: `model.layers.7.mlp.up_proj.weight` is one of `mlp.up_proj.weight`.

    `largest` and `relative` are those of the tensor where they are highest.
    """
    from langadapt.model.shield import Drift

    found: dict[str, Drift] = {}
    for name, drift in drifts.items():
        _, kind = layer_and_kind(name)
        before = found.get(kind)
        if before is not None:
            drift = Drift(
                before.moved + drift.moved,
                before.may_move + drift.may_move,
                before.of + drift.of,
                before.broken + drift.broken,
                _highest(before.largest, drift.largest),
                _highest(before.relative, drift.relative),
                before.first or drift.first,
            )
        found[kind] = drift
    return found


def _highest(one: float | None, other: float | None) -> float | None:
    """None is what is not a number, and higher than any."""
    return None if one is None or other is None else max(one, other)


def record(found: Shielded) -> dict[str, Any]:
    """The same as plain values, for `--json`."""
    from langadapt.model.shield import total

    return {
        "holds": not found.broken,
        "against": found.against.replace("`", ""),
        "total": total(found.drifts),
        "kinds": {name: asdict(drift) for name, drift in by_kind(found.drifts).items()},
        "tensors": {name: asdict(drift) for name, drift in found.drifts.items()},
        "notes": list(found.notes),
    }


def table(found: Shielded) -> Table:
    """How far each kind of tensor moved."""
    rows = tuple(
        (name, f"{drift.of:,}", f"{drift.may_move:,}", f"{drift.moved:,}", _number(drift.largest),
         _number(drift.relative), _state(drift))
        for name, drift in by_kind(found.drifts).items()
    )  # fmt: skip
    columns = ("tensors", "values", "may move", "moved", "most", "|Δ| / |W|", "shield")
    return Table("drift from the base", columns, rows, (f"held against {found.against}", *found.notes))


def insist(found: Shielded) -> None:
    """LangadaptError if a shielded value differs."""
    from langadapt.model.shield import check

    check(found.drifts, found.tuned)


def _state(drift: "Drift") -> str:
    if drift.broken:
        return f"{drift.broken:,} broken"
    return "holds" if drift.may_move < drift.of else "none"


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3g}"
