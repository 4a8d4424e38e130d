"""Verbs, methods and commands are found by listing folders."""

import ast
import sys
from pathlib import Path

import pytest

from langadapt.core import listing, registry
from langadapt.core.config import Options
from langadapt.core.errors import ConfigError


@pytest.fixture()
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package `langadapt.invented` with one method, a helper and a private file."""
    import langadapt

    folder = tmp_path / "invented"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Room."""\n')
    (folder / "good_one.py").write_text(
        '"""Does good.\n\nMore."""\nfrom langadapt.core.config import Options as Base\n'
        "from langadapt.core.registry import method\n\n\nclass Options(Base):\n    depth: int = 3\n\n\n"
        '@method(needs=("text",), cite="Doe 2020")\ndef good_one(a: int, options: Options) -> int:\n    return a\n'
    )
    (folder / "helper.py").write_text('"""Helps; mentions @method( in passing."""\n')
    (folder / "_private.py").write_text("@method()\ndef f(): ...\n")
    (folder / "unmarked.py").write_text('"""Marks nothing."""\ntext = """\n@method(\n"""\n')
    monkeypatch.setattr(langadapt, "__path__", [*langadapt.__path__, str(tmp_path)])
    yield "invented"
    for name in [name for name in sys.modules if name.startswith("langadapt.invented")]:
        del sys.modules[name]


def test_methods_of_a_room(room: str) -> None:
    assert registry.method_names(room) == ["good-one", "unmarked"]
    assert listing.summary("langadapt.invented", "good-one") == "Does good"
    method = registry.load_method(room, "good-one")
    assert (method.name, method.summary, method.facts.needs, method.facts.cite) == (
        "good-one",
        "Does good",
        ("text",),
        "Doe 2020",
    )
    assert issubclass(method.options, Options)
    assert method(5, method.options()) == 5


def test_unknown_and_unmarked_methods(room: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load_method(room, "god-one")
    assert "did you mean `good-one`" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="marks no function"):
        registry.load_method(room, "unmarked")


def test_listing_imports_nothing(room: str) -> None:
    before = set(sys.modules)
    registry.method_names(room)
    listing.summary("langadapt.invented", "good-one")
    assert set(sys.modules) - before <= {"langadapt.invented"}


def test_unknown_verb_and_room() -> None:
    with pytest.raises(ConfigError, match="unknown verb `prepar`") as caught:
        registry.load_verb("prepar")
    assert "prepare" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="no room"):
        listing.folder("langadapt.nowhere")


@pytest.mark.parametrize("name", registry.verb_names())
def test_every_verb_declares_itself(name: str) -> None:
    from langadapt.core.verb import load

    verb = load(name)
    assert verb.kind and verb.schema >= 1
    assert verb.summary and not verb.summary.endswith(".")
    undocumented = [key for key, field in verb.config.model_fields.items() if not field.description]
    assert not undocumented, f"no help text: {undocumented}"


@pytest.mark.parametrize("name", listing.command_names())
def test_every_command_has_a_description(name: str) -> None:
    assert listing.summary("langadapt.cli", name)


def test_every_method_loads() -> None:
    for room in listing.method_rooms():
        for name in registry.method_names(room):
            method = registry.load_method(room, name)
            assert method.summary
            required = [key for key, field in method.options.model_fields.items() if field.is_required()]
            assert required == (["config"] if name == "peft" else []), "every option has a default"


def test_method_rooms_hold_marked_functions() -> None:
    for room in listing.method_rooms():
        for name in listing.source_names(f"langadapt.{room}", containing="\n@method("):
            source = (listing.folder(f"langadapt.{room}") / f"{name.replace('-', '_')}.py").read_text()
            marked = [
                node.name
                for node in ast.parse(source).body
                if isinstance(node, ast.FunctionDef)
                and any("method(" in ast.unparse(item) for item in node.decorator_list)
            ]
            assert marked == [name.replace("-", "_")], "one public method a file, named like the file"
