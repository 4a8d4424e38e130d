"""Adapt language models to new languages. The functions here are the verbs of the command line, with the same names."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    __version__ = version("langadapt")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """`langadapt.extend_vocab(model, corpus, out=..., ...)`: bound on first use, so that importing langadapt is fast.

    Beside the verbs: `try_models(models, prompts, Manner(...))`, `diagnose(models, lang=..., text=...)`.
    """
    from langadapt.core import registry

    if name in ("try_models", "Manner"):
        from langadapt.steps import try_models

        return getattr(try_models, name)
    if name == "diagnose":
        from langadapt.steps.diagnose import diagnose

        return diagnose
    public = name.replace("_", "-")
    if name.startswith("_") or public not in registry.verb_names():
        functions = "" if name.startswith("_") else f"; it has {', '.join(__dir__())}"
        raise AttributeError(f"module `langadapt` has no attribute `{name}`{functions}")
    from langadapt.notebook import bind

    function = bind(public)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    """What a notebook completes: the verbs, though none is bound yet, and what stands beside them."""
    from langadapt.core import registry

    return sorted([*(name.replace("-", "_") for name in registry.verb_names()), "Manner", "diagnose", "try_models"])


class _Verbs(ModuleType):
    """Keeps `langadapt.evaluate` the verb: importing the room of that name would put the room in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        # looked up as a file: `langadapt --help` imports no list of verbs for this
        if not (isinstance(value, ModuleType) and Path(__file__).with_name("steps").joinpath(f"{name}.py").is_file()):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Verbs
