"""Verbs as Python functions: same names, same arguments, same artifacts as on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact
from langadapt.core.config import validate
from langadapt.core.deadline import time_limit
from langadapt.core.progress import Listener, Progress, ignore


def bind(name: str) -> Callable[..., Artifact]:
    """The function of one verb: `f(out=folder, **fields of its config)` returns the artifact."""
    verb = verbs.load(name)

    def call(*, out: str | Path, overwrite: bool = False, listener: Listener = ignore, **values: Any) -> Artifact:
        plain = {key: _plain(value) for key, value in values.items()}
        config = validate(verb.config, plain, what=f"{name}()")
        with time_limit():
            return verbs.perform(verb, config, Path(out), overwrite=overwrite, progress=Progress(listener)).artifact

    call.__name__ = name.replace("-", "_")
    call.__doc__ = (
        f"{verb.summary}.\n\nKeyword arguments: `out`, `overwrite`, `listener`, and the fields of `{name}`: "
        + ", ".join(verb.config.model_fields)
    )
    return call


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Artifact):
        return str(value.path)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
