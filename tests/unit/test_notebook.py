"""The verbs as functions of the package."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.cli.flags import bindings
from langadapt.core.errors import ConfigError
from langadapt.core.listing import verb_names
from langadapt.core.verb import load
from langadapt.notebook import bind


def test_a_verb_stays_a_verb_when_the_room_of_its_name_is_imported() -> None:
    """Python puts a subpackage into its parent on import: the second call in a notebook would find a module."""
    for name in ("evaluate", "report"):
        assert langadapt.__getattr__(name).__name__ == name
        room = importlib.import_module(f"langadapt.{name}")
        assert room.__name__ == f"langadapt.{name}"
        langadapt.__setattr__(name, room)
        assert callable(getattr(langadapt, name)) and getattr(langadapt, name) is not room


@pytest.mark.parametrize("name", sorted(verb_names()))
def test_inputs_have_the_places_that_they_have_on_the_command_line(name: str) -> None:
    """`langadapt extend-vocab MODEL CORPUS` is `extend_vocab(model, corpus)`; everything else goes by name."""
    function = bind(name)
    parameters = inspect.signature(function).parameters
    placed = [key for key, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    verb = load(name)
    assert placed == [item.name for item in bindings(verb.config) if item.positional] and placed
    assert parameters.keys() == {*verb.config.model_fields, "out", "overwrite", "listener"}
    needed = {key for key, one in parameters.items() if one.default is one.empty}
    assert needed == {"out"} | {key for key, field in verb.config.model_fields.items() if field.is_required()}
    assert all(f"\n{key}: " in (function.__doc__ or "") for key in parameters)


def test_a_notebook_sees_the_verbs_before_one_is_used() -> None:
    """Completion asks dir(); a name that is none, such as a command's, is answered with those that there are."""
    names = [name.replace("-", "_") for name in verb_names()]
    assert set(dir(langadapt)) == {*names, "diagnose", "try_models", "Manner"}
    with pytest.raises(AttributeError, match=r"no attribute `verify`; it has .*calibrate.*, select"):
        _ = langadapt.verify
    assert not hasattr(langadapt, "__wrapped__")


@pytest.mark.parametrize("name", sorted(verb_names()))
def test_signatures_are_for_people(name: str) -> None:
    """Types as Python writes them, without the validators behind them."""
    assert "Annotated" not in str(inspect.signature(bind(name)))


def test_inputs_by_place_make_the_same_artifact_as_by_name(tmp_path: Path) -> None:
    """One text needs no list."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"This is line number {number} of a small text." for number in range(60)))
    first = langadapt.prepare(text, out=tmp_path / "a", lang="en", min_lang_probability=0)
    second = langadapt.prepare(text=[str(text)], out=str(tmp_path / "b"), lang="en", min_lang_probability=0)
    assert first.digest == second.digest and first.facts["documents"] > 50
    assert repr(first) == f"<corpus made by prepare: {tmp_path / 'a'}>"


@pytest.mark.parametrize(
    ("given", "named", "said"),
    [
        (("m", "c"), {"out": "o", "sise": 4}, ["no argument `sise`", "did you mean `size`?"]),
        (("m", "c"), {"ouput": "o"}, ["no argument `ouput`", "did you mean `out`?"]),
        (("m", "c", "g"), {"out": "o"}, ["2 argument(s) without a name (model, corpus), 3 were given"]),
        (("m", "c"), {"out": "o", "corpus": "c"}, ["`corpus` is given twice"]),
        (("m",), {"out": "o"}, ["missing: `corpus`", "langadapt.extend_vocab(model, corpus, out=...)"]),
        (("m", "c"), {}, ["missing: `out`"]),
        (("m", "c"), {"out": "o", "size": "many"}, ["in extend_vocab()", "`size`"]),
    ],
)
def test_a_wrong_call_says_what_the_function_takes(given: tuple[str, ...], named: dict[str, Any], said: list[str]):
    with pytest.raises(ConfigError) as caught:
        langadapt.extend_vocab(*given, **named)
    assert all(text in str(caught.value) for text in said), str(caught.value)
