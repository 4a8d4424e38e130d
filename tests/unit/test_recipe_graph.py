"""Recipes: what is wrong is found before anything runs, with file and line; paths stay in the folder."""

from pathlib import Path

import pytest

from langadapt.core.errors import ConfigError, SafetyError
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import Graph, build
from langadapt.recipe.sources import FromPath, FromStep
from tests.fixtures import toys


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toys.install(monkeypatch)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.txt").write_text("aaa")
    (tmp_path / "outside.txt").write_text("outside")
    monkeypatch.chdir(tmp_path)


def made(text: str, *settings: str) -> Graph:
    path = Path("recipes/r.yaml")
    path.write_text(text)
    return build(path, tuple(Setting.parse(item) for item in settings))


def refused(text: str, *settings: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        made(text, *settings)
    assert caught.value.exit_code == 2
    assert not Path("work").exists()
    return caught.value


TWO = """
vars: {target: hu, size: 3}
steps:
  all:
    use: join
    parts: {"${target}": one, two: two}
  one: {use: note, text: [a.txt], lang: "${target}", size: "${size}", tags: {x: "lang-${target}-${size}"}}
  two: {use: note, text: a.txt}
"""


def test_order_follows_references_and_else_the_file() -> None:
    graph = made(TWO)
    assert list(graph.steps) == ["one", "two", "all"]
    assert graph.steps["all"].wiring == {"parts": {"hu": FromStep("one"), "two": FromStep("two")}}
    assert graph.steps["two"].wiring == {"text": (FromPath(str(Path("recipes/a.txt").absolute())),)}


def test_a_variable_alone_keeps_its_type_and_inside_text_becomes_text() -> None:
    values = made(TWO).steps["one"].values
    assert values["size"] == 3 and values["lang"] == "hu" and values["tags"] == {"x": "lang-hu-3"}


@pytest.mark.parametrize(
    ("settings", "size", "lang"),
    [((), 3, "hu"), (("size=4k",), 4000, "hu"), (("target=no",), 3, "no"), (("one.size=5", "target=0123"), 5, "0123"),
     (("one.size=${size}", "size=7"), 7, "hu")],
)  # fmt: skip
def test_settings_take_the_type_of_their_place(settings: tuple[str, ...], size: int, lang: str) -> None:
    config = made(TWO, *settings).steps["one"].config(lambda step: step)
    assert (config.size, config.lang) == (size, lang)  # type: ignore[attr-defined]


def test_a_cycle_is_printed_as_a_path_and_nothing_runs() -> None:
    error = refused("steps:\n  a: {use: join, first: c}\n  b: {use: join, first: a}\n  c: {use: join, first: b}\n")
    assert "expects a note, step `c` makes a model" in error.message
    cycle = "steps:\n  x: {use: note, text: a.txt}\n  a: {use: note, text: [c]}\n  b: {use: note, text: [a, x]}\n"
    error = refused(cycle + "  c: {use: note, text: [b]}\n")
    assert error.message == "cycle: `a` -> `b` -> `c` -> `a`"
    assert error.where == "recipes/r.yaml:3"


def test_a_step_cannot_read_itself() -> None:
    error = refused("steps:\n  a: {use: note, text: [a]}\n")
    assert error.message == "step `a` reads its own output" and error.where == "recipes/r.yaml:2"


@pytest.mark.parametrize(
    ("text", "message", "line", "hint"),
    [
        ("steps:\n  a: {use: note, text: b}\n", "neither a step of this recipe nor a file", 2, None),
        ("steps:\n  first: {use: note, text: a.txt}\n  b: {use: join, parts: {x: frist}}\n", "`parts: frist`", 3,
         "did you mean `first`?"),
        ("steps:\n  a: {use: nota, text: a.txt}\n", "unknown verb `nota`", 2, "did you mean `note`?"),
        ("steps:\n  a:\n    use: note\n    text: a.txt\n    sise: 3\n", "unknown key `sise`", 5,
         "did you mean `size`?"),
        ("steps:\n  a: {use: note}\n", "`text` is missing", 2, None),
        ("steps:\n  a: {use: note, text: a.txt, size: no}\n", "`size`", 2, None),
        ("step: {}\nsteps:\n  a: {use: note, text: a.txt}\n", "unknown key `step`", 1, "did you mean `steps`?"),
        ("name: x\n", "needs `steps:", None, None),
        ("steps: [a]\n", "needs `steps:", 1, None),
        ("steps:\n  ../a: {use: note, text: a.txt}\n", "cannot be the id", 2, None),
        ("steps:\n  a-0123456789: {use: note, text: a.txt}\n", "cannot be the id", 2, None),
        ("vars: {size: 2}\nsteps:\n  a: {use: note, text: a.txt, size: '${sise}'}\n", "unknown variable `sise`", 3,
         "did you mean `size`?"),
        ("vars: {t: null}\nsteps:\n  a: {use: note, text: '${t}'}\n", "variable `t` is not set", 3,
         "give -o t=..."),
        ("vars: {t: null}\nsteps:\n  a: {use: note, text: a.txt, lang: 'x${t}'}\n", "variable `t` is not set", 3,
         "give `-o t=...`"),
        ("vars: {t: '${u}'}\nsteps:\n  a: {use: note, text: a.txt}\n", "only steps can", 1, None),
        ("steps:\n  a: {use: note, text: a.txt, when: maybe}\n", "`when` should be", 2, None),
        ("steps:\n  a: {use: note, text: [b]}\n  b: {use: note, text: a.txt, when: false}\n",
         "only to what is switched off: b", 2, None),
        ("vars: {t: hu}\nsteps:\n  a: {use: note, text: a.txt, tags: {'${t}': a, hu: b}}\n", "two keys become `hu`", 3,
         None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, message: str, line: int | None, hint: str | None) -> None:
    error = refused(text)
    assert message in error.message
    if line is not None:
        assert error.where == f"recipes/r.yaml:{line}"
    if hint is not None:
        assert error.hint == hint


def test_settings_that_cannot_go_together_are_told_before_anything_runs() -> None:
    """Not when it is that step's turn."""
    text = "steps:\n  a: {use: note, text: a.txt}\n  b:\n    use: note\n    text: [a]\n    size: 13\n    lang: no\n"
    error = refused(text.replace("lang: no", "lang: 'no'"))
    assert error.message == "step `b` (note): 13 is no size for `no`"
    assert error.where == "recipes/r.yaml:6" and error.hint == "give another"


def test_what_is_still_to_be_given_is_not_judged() -> None:
    """A recipe may be whole before all is given: an optional variable may be what makes it one."""
    text = "vars: {lang: null, size: 13}\nsteps:\n  a: {use: note, text: a.txt, size: '${size}', lang: '${lang}'}\n"
    Path("recipes/r.yaml").write_text(text)

    def lenient(*settings: str) -> Graph:
        return build(Path("recipes/r.yaml"), tuple(Setting.parse(item) for item in settings), lenient=True)

    assert lenient("size=12", "lang=no").steps
    assert lenient().steps
    with pytest.raises(ConfigError, match="13 is no size"):
        lenient("lang=no")


def test_all_problems_are_told_at_once() -> None:
    error = refused("steps:\n  a: {use: note, text: a.txt, sise: 1}\n  b: {use: nota}\n")
    assert "2 problems" in error.message and "r.yaml:2" in error.message and "r.yaml:3" in error.message


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ("sise=1", "no variable `sise`", "did you mean `size`?"),
        ("one", "not of the form", None),
        ("on.size=1", "no step `on`", "did you mean `one`?"),
        ("one.sise=1", "unknown key `sise`", "did you mean `size`?"),
        ("one.use=join", "`use` cannot be set", None),
        ("size=x", "`size`", None),
        ("one.text=missing.txt", "neither a step", None),
    ],
)
def test_wrong_settings(setting: str, message: str, hint: str | None) -> None:
    error = refused(TWO, setting)
    assert message in error.message
    assert hint is None or error.hint == hint


def test_steps_that_are_off_are_dropped_where_that_is_allowed() -> None:
    text = """
vars: {other: null, control: false}
steps:
  one: {use: note, text: a.txt}
  other: {use: note, text: "${other}", when: "${other}"}
  all: {use: join, parts: {one: one, other: other}, first: other, share: {one: 0.5}}
  control: {use: join, when: "${control}", parts: {one: one}}
"""
    graph = made(text)
    assert list(graph.steps) == ["one", "all"] and graph.off == ("other", "control")
    assert graph.steps["all"].wiring == {"parts": {"one": FromStep("one")}}
    on = made(text, "other=outside.txt", "control=true")
    assert list(on.steps) == ["one", "other", "all", "control"]
    assert on.steps["all"].wiring["first"] == FromStep("other")


def test_a_null_variable_leaves_an_optional_field_at_its_default() -> None:
    text = (
        "vars: {size: null, m: null}\nsteps:\n  a: {use: note, text: a.txt, size: '${size}'}\n"
        "  b: {use: join, model: '${m}', parts: {x: a, y: '${m}'}}\n"
    )
    graph = made(text)
    assert "size" not in graph.steps["a"].values
    assert graph.steps["b"].wiring == {"parts": {"x": FromStep("a")}}


@pytest.mark.parametrize(
    "bad", ["../outside.txt", "{absolute}", "link.txt", "folder/../../outside.txt", "~/x", "linked/outside.txt"]
)
@pytest.mark.parametrize("place", ["text: {}", "text: [a.txt, {}]", "text: '${{v}}'"])
def test_paths_in_a_recipe_stay_in_its_folder(tmp_path: Path, bad: str, place: str) -> None:
    Path("recipes/link.txt").symlink_to(tmp_path / "outside.txt")
    Path("recipes/linked").symlink_to(tmp_path)
    bad = bad.replace("{absolute}", str(tmp_path / "outside.txt"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SafetyError) as caught:
        made(f"vars: {{v: '{bad}'}}\nsteps:\n  a: {{use: note, {place.format(bad)}}}\n")
    assert caught.value.exit_code == 6 and caught.value.where == "recipes/r.yaml:3"
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "recipes" / "r.yaml"])


def test_typed_paths_may_be_anything_and_start_from_the_current_folder(tmp_path: Path) -> None:
    text = "vars: {v: null}\nsteps:\n  a: {use: note, text: '${v}'}\n"
    wanted = (FromPath(str(tmp_path / "outside.txt")),)
    assert made(text, "v=outside.txt").steps["a"].wiring["text"] == wanted
    assert made(text, f"v={tmp_path}/outside.txt").steps["a"].wiring["text"] == wanted
    assert made(text.replace("'${v}'", "a.txt"), "a.text=outside.txt").steps["a"].wiring["text"] == wanted


def test_a_model_may_be_a_hub_id() -> None:
    graph = made("steps:\n  a: {use: join, model: some-one/a-model}\n")
    assert graph.steps["a"].wiring["model"] == FromPath("some-one/a-model")
    with pytest.raises(SafetyError):
        made("steps:\n  a: {use: join, model: some/../../one}\n")


def test_up_to_keeps_only_what_is_needed() -> None:
    assert list(made(TWO).up_to(["one"]).steps) == ["one"]
    assert list(made(TWO).up_to(["all"]).steps) == ["one", "two", "all"]
