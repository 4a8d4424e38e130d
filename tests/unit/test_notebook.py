"""The verbs as functions of the package."""

import importlib

import langadapt


def test_a_verb_stays_a_verb_when_the_room_of_its_name_is_imported() -> None:
    """Python puts a subpackage into its parent on import: the second call in a notebook would find a module."""
    for name in ("evaluate", "report"):
        assert langadapt.__getattr__(name).__name__ == name
        room = importlib.import_module(f"langadapt.{name}")
        assert room.__name__ == f"langadapt.{name}"
        langadapt.__setattr__(name, room)
        assert callable(getattr(langadapt, name)) and getattr(langadapt, name) is not room
