"""Statistics and selections that a run is handed: of its model, and with a manifest that says what is read of it.

A manifest whose digests are right may have been written by another program, or by hand. What it says is looked at
here, once and before anything is done, so that everything behind may take it as it is.
"""

from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from langadapt.core.errors import DataError
from langadapt.core.inputs import Input

Kind = Literal["statistics", "selection"]


class _Stability(TypedDict):
    neurons: float | None
    columns: float | None


class _Language(TypedDict):
    tokens: int
    bytes: int
    documents: int
    stability: _Stability


class _Statistics(TypedDict):
    languages: dict[str, _Language]
    model_digest: str
    window_tokens: int
    skip_first: bool
    chat: bool
    taylor: bool
    compute: str
    opener: int | None


class _Selection(TypedDict):
    model_digest: str
    moving: int
    parameters: int
    body_share: float
    tables_share: float
    whole: bool


_SHAPES: dict[Kind, TypeAdapter[Any]] = {
    "statistics": TypeAdapter(_Statistics), "selection": TypeAdapter(_Selection)
}  # fmt: skip
# What people call it, and what makes it.
_NAMES: dict[Kind, tuple[str, str]] = {
    "statistics": ("measurement", "langadapt calibrate"), "selection": ("selection", "langadapt select")
}  # fmt: skip


def check_given(given: Input, model: Input, kind: Kind) -> None:
    """DataError if its manifest lacks what is read of it, or if it was made of another model."""
    if not given.exists:
        return
    what, command = _NAMES[kind]
    try:
        _SHAPES[kind].validate_python(dict(given.facts), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        fault = f"lacks `{place}`" if first["type"] == "missing" else f"has a wrong `{place}`: {first['msg'].lower()}"
        raise DataError(
            f"the manifest of the {what} `{given.given}` {fault}",
            hint=f"make it again: {command} {model.given} ...",
        ) from error
    made_for = given.facts["model_digest"]
    if model.exists and made_for != model.digest:
        raise DataError(
            f"the {what} `{given.given}` was made of another model than `{model.given}` (of {made_for[:12]}, "
            f"not of {model.digest[:12]})",
            hint=f"make it of this one: {command} {model.given} ...",
        )
