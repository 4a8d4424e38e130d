"""The matrix, conditions, parts of a recipe, and what can be known of one without running it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from langadapt.core.errors import ConfigError, LangadaptError
from langadapt.recipe.check import check
from langadapt.recipe.condition import switched_on
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import Graph, build
from langadapt.recipe.plan import plan
from langadapt.recipe.runner import Jobs, RunDone, run
from langadapt.recipe.schema import recipe_schema
from langadapt.recipe.sources import FromStep
from langadapt.recipe.values import Variables
from tests.fixtures import toys

RECIPE = """
matrix:
  lang: [hu, fi]
  seed: [1, 2]
  way: {gentle: {size: 3}, bold: {size: 40}}
  exclude: [{lang: fi, seed: 2}]
vars: {quick: false}
steps:
  one: {use: note, matrix: [lang], text: "${lang}.txt", lang: "${lang}"}
  two: {use: join, matrix: [lang, seed], parts: {x: one}, seed: "${seed}"}
  sized: {use: note, matrix: way, text: hu.txt, size: "${way.size}", tags: {"${way}": "is-${way}"}}
  all: {use: join, parts: {"${lang}": one, "w-${way}": sized}, share: {"${seed}": 0.5}}
  each: {use: score, matrix: [seed, lang], base: two, adapted: two, when: "${lang} != fi or ${quick}"}
  many: {use: note, text: [hu.txt], when: "${quick}"}
"""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toys.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("hu", "fi"):
        Path(f"{name}.txt").write_text(name)
    Path("r.yaml").write_text(RECIPE)


def made(*settings: str, text: str | None = None, lenient: bool = False) -> Graph:
    if text is not None:
        Path("r.yaml").write_text(text)
    return build(Path("r.yaml"), tuple(Setting.parse(item) for item in settings), lenient=lenient)


def go(*settings: str, jobs: Jobs | None = None, **part: tuple[str, ...]) -> RunDone:
    return run(made(*settings).select(**part), Path("out"), jobs=jobs or Jobs())  # type: ignore[arg-type]


def states(done: RunDone) -> dict[str, str]:
    return {step.id: step.state for step in done.steps}


def test_a_step_is_made_for_every_point_and_references_follow() -> None:
    graph = made()
    assert list(graph.steps) == [
        "one@hu", "one@fi", "two@hu,1", "two@hu,2", "two@fi,1", "sized@gentle", "sized@bold", "all", "each@1,hu",
        "each@2,hu",
    ]  # fmt: skip
    assert graph.off == ("each@1,fi", "many")
    assert graph.steps["two@fi,1"].wiring == {"parts": {"x": FromStep("one@fi")}}
    assert graph.steps["two@hu,2"].values["seed"] == 2, "a value keeps its type"
    assert graph.steps["each@2,hu"].wiring["base"] == FromStep("two@hu,2"), "axes match by name, not by order"
    assert graph.steps["sized@bold"].values == {"size": 40, "tags": {"bold": "is-bold"}}
    assert graph.steps["all"].wiring["parts"] == {
        "hu": FromStep("one@hu"), "fi": FromStep("one@fi"),
        "w-gentle": FromStep("sized@gentle"), "w-bold": FromStep("sized@bold"),
    }  # fmt: skip
    assert graph.steps["all"].values["share"] == {"1": 0.5, "2": 0.5}


def test_axes_are_narrowed_and_steps_set_from_outside() -> None:
    assert [name for name in made("lang=hu").steps if name.startswith("two")] == ["two@hu,1", "two@hu,2"]
    assert [name for name in made("seed=[7]").steps if name.startswith("two")] == ["two@hu,7", "two@fi,7"]
    modes = made("two.mode=b", "two@hu,1.mode=a").steps
    assert [modes[name].values["mode"] for name in ("two@hu,1", "two@hu,2", "two@fi,1")] == ["a", "b", "b"]
    modes = made("two@hu,1.mode=a", "two.mode=b").steps
    assert modes["two@hu,1"].values["mode"] == "b", "what is given later wins"
    dotted = made("r@0.5,1.size=8", text="matrix: {rate: [0.5, 1e-4], seed: [1]}\nsteps:\n  r: {use: note, matrix: "
                  "[rate, seed], text: hu.txt}\n")  # fmt: skip
    assert dotted.steps["r@0.5,1"].values["size"] == 8 and "size" not in dotted.steps["r@0.0001,1"].values


@pytest.mark.parametrize(
    ("text", "settings", "message", "hint"),
    [
        ("matrix: {lang: [hu]}\nsteps:\n  a: {use: note, text: hu.txt, matrix: [lnag]}\n", (), "no axis `lnag`",
         "did you mean `lang`?"),
        ("matrix: {lang: [hu]}\nsteps:\n  a: {use: note, text: '${lang}.txt'}\n", (), "is an axis of the matrix",
         "add `matrix: [lang]`"),
        ("matrix: {lang: [hu], exclude: [{lnag: hu}]}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "names no axis",
         "did you mean `lang`?"),
        ("matrix: {lang: [hu], exclude: [{lang: fi}]}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "no value `fi`",
         None),
        ("matrix: {lang: [a/b]}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "parts of file names", None),
        ("matrix: {lang: ['..']}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "parts of file names", None),
        ("matrix: {lang: [Hu, hu]}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "twice", None),
        ("matrix: {lang: []}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "no values", None),
        ("vars: {lang: hu}\nmatrix: {lang: [hu]}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "is a variable", None),
        ("matrix: {w: {x: {a: 1}, y: {}}}\nsteps:\n  a: {use: note, text: hu.txt}\n", (), "lacks `a`", None),
        ("matrix: {n: [1], exclude: [{n: 1}]}\nsteps:\n  a: {use: note, matrix: n, text: hu.txt}\n", (),
         "leaves nothing", None),
        ("matrix: {l: [hu, fi]}\nsteps:\n  a: {use: note, matrix: l, text: hu.txt}\n  b: {use: join, first: a}\n", (),
         "means 2 steps, one for each l", "add `matrix: [l]`"),
        ("matrix: {l: [hu, fi]}\nsteps:\n  a: {use: note, matrix: l, text: hu.txt}\n  b: {use: join, parts: {x: a}}\n",
         (), "means 2 steps", "collect them"),
        (RECIPE, ("way=wild",), "no value `wild`", None),
        (RECIPE, ("two@hu,3.mode=b",), "no step `two@hu,3`", None),
        (RECIPE, ("two.matrix=[lang]",), "cannot be set from outside", None),
        ("matrix: {a: [" + "1, " * 0 + ", ".join(map(str, range(40))) + "], b: [" + ", ".join(map(str, range(40))) +
         "]}\nsteps:\n  a: {use: note, matrix: [a, b], text: hu.txt}\n", (), "more than 1,000 steps", None),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_matrix(text: str, settings: tuple[str, ...], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        made(*settings, text=text)
    assert message in caught.value.message, caught.value
    assert hint is None or hint in str(caught.value.hint)


def test_a_problem_of_many_points_is_told_once() -> None:
    with pytest.raises(ConfigError) as caught:
        made(text=RECIPE.replace('seed: "${seed}"', "mode: c"))
    assert "`mode`" in caught.value.message and "problems in" not in caught.value.message


VALUES: dict[str, Any] = {"lang": "or", "quick": False, "n": 2, "rate": 1e-4, "none": None, "empty": "", "l": ["a", 1]}


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ("${lang} == or", True), ("${lang} in [or, in]", True), ("${lang} not in ['or']", False),
        ("${n} == 2.0 and ${rate} == 1e-4", True), ("${n} == true", False), ("${quick} == false", True),
        ("${none} == null", True), ("${none}", False), ("${empty}", False), ("not ${empty}", True),
        ("${n} != 3 and not (${quick} or ${none})", True), ("${quick} and ${n} or ${n}", True),
        ("${quick} and (${n} or ${n})", False), ("'1' in ${l}", True), ("true", True), ("not ${n} == 2", False),
    ],
)  # fmt: skip
def test_conditions(when: str, wanted: bool) -> None:
    assert switched_on(when, Variables(VALUES, frozenset()), None) is wanted


@pytest.mark.parametrize(
    "when", ["", "n == 2", "lang", "${n} = 2", "${n} ==", "${n} 2", "${sise}", "(${n}", "${n})", "${n} in 2", "[${n}",
             "__import__('os').system('x')", "${n}.real", "lambda: ${n}", "not " * 30 + "${n}", "(" * 40 + "${n}",
             "${n} " * 2000, 3, None, ["${n}"]],
)  # fmt: skip
def test_what_is_no_condition(when: Any) -> None:
    with pytest.raises(ConfigError):
        switched_on(when, Variables(VALUES, frozenset()), "r.yaml:1")


def test_side_by_side_is_the_same_as_one_after_the_other() -> None:
    Path("r.yaml").write_text(CHAIN)
    alone = {step.id: step.artifact.digest for step in go().steps}
    for path in Path("out/steps").iterdir():
        path.rename(path.with_name("old-" + path.name))
    assert {step.id: step.artifact.digest for step in go(jobs=Jobs(most=4)).steps} == alone
    assert set(states(go(jobs=Jobs(most=4))).values()) == {"up to date"}


BROKEN = """
vars: {act: null}
steps:
  bad: {use: note, text: hu.txt, act: "${act}"}
  needs-bad: {use: join, parts: {x: bad}}
  good: {use: note, text: fi.txt}
  needs-good: {use: join, parts: {x: good}}
"""


def test_a_failure_stops_new_starts_unless_told_to_keep_going() -> None:
    Path("r.yaml").write_text(BROKEN)
    with pytest.raises(LangadaptError, match="refused"):
        go("act=refuse")
    assert not Path("out/steps/good").exists()
    with pytest.raises(LangadaptError, match="refused"):
        go("act=refuse", jobs=Jobs(keep_going=True))
    assert Path("out/steps/needs-good").exists() and not Path("out/steps/needs-bad").exists()
    assert states(go())["needs-good"] == "up to date"


def test_heavy_steps_do_not_overlap_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.recipe import isolate

    most = {"all": 0, "heavy": 0}
    start = isolate.Crew.start

    def counted(crew: isolate.Crew, name: str, *rest: Any, **more: Any) -> None:
        start(crew, name, *rest, **more)
        most["all"] = max(most["all"], len(crew.children))
        most["heavy"] = max(most["heavy"], sum(child.startswith("h") for child in crew.children))

    monkeypatch.setattr(isolate.Crew, "start", counted)
    note = __import__("importlib").import_module("langadapt.steps.note")
    monkeypatch.setattr(note, "HEAVY", True, raising=False)
    Path("r.yaml").write_text(
        "steps:\n" + "".join(f"  h{n}: {{use: note, text: hu.txt, size: {n}}}\n" for n in range(1, 4))
        + "".join(f"  j{n}: {{use: join, share: {{x: {n}}}}}\n" for n in range(1, 3))
    )  # fmt: skip
    go(jobs=Jobs(most=3))
    assert most["heavy"] == 1 and most["all"] > 1
    most["heavy"] = 0
    Path("out").rename("old")
    go(jobs=Jobs(most=3, heavy=2))
    assert most["heavy"] == 2


CHAIN = """
vars: {size: 1}
steps:
  one: {use: note, text: hu.txt, size: "${size}"}
  other: {use: note, text: fi.txt}
  base: {use: join, parts: {x: one, y: other}}
  score: {base: base, adapted: base}
"""


def test_parts_of_a_recipe_use_what_is_there_and_say_so() -> None:
    Path("r.yaml").write_text(CHAIN)
    with pytest.raises(ConfigError, match="needs step `one`, which is not to run") as caught:
        go(first=("base",))
    assert "--only one" in str(caught.value.hint)
    assert states(go(until=("one", "other"))) == {"one": "new", "other": "new"}
    assert states(go(first=("base",))) == {"base": "new", "score": "new"}
    heard: list[Any] = []
    graph = made("size=5").select(only=("base",))
    done = run(graph, Path("out"), listener=heard.append)
    assert states(done) == {"base": "up to date"}, "it read the output of `one` that is there"
    warnings = [event.text for event in heard if getattr(event, "level", "") == "warning"]
    assert warnings == ["one is used as it is; not up to date: config `size` changed 1 -> 5"]
    assert states(go("size=5", first=("one",), until=("base",))) == {"one": "new", "base": "new"}
    with pytest.raises(ConfigError, match="no step `bsae`"):
        go(only=("bsae",))
    with pytest.raises(ConfigError, match="no step is both"):
        go(first=("score",), until=("one",))


def test_why_names_each_part_of_the_key_that_changed() -> None:
    Path("r.yaml").write_text(CHAIN)
    go()
    Path("fi.txt").write_text("changed")
    looked = plan(made("size=5"), Path("out"), estimates=False)
    told = {entry["step"]: entry for entry in looked.why()["steps"]}
    assert told["one"]["changes"] == [{"part": "config", "name": "size", "old": 1, "new": 5}]
    (change,) = told["other"]["changes"]
    assert change["part"] == "input" and change["name"] == "text.0" and len(change["old"]) == len(change["new"]) == 64
    assert [item["part"] for item in told["base"]["changes"]] == ["input", "input"]
    assert told["one"]["compared_with"].startswith(str(Path("out/steps").absolute()))
    rows = looked.why_table().rows
    assert ("one", "would run", "config `size`", "1", "5") in rows
    record = Path(told["one"]["compared_with"], "run.json")
    record.write_text(json.dumps({"versions": {"numpy": "0.1"}}))
    versions = {entry["step"]: entry["versions"] for entry in looked.why()["steps"]}
    assert versions["one"][0][:2] == ["numpy", "0.1"]


def test_a_new_version_of_a_verb_is_part_of_why(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("r.yaml").write_text(CHAIN)
    go(until=("one",))
    note = __import__("importlib").import_module("langadapt.steps.note")
    monkeypatch.setattr(note, "SCHEMA", 2)
    entry = plan(made(), Path("out"), estimates=False).why()["steps"][0]
    assert entry["changes"] == [{"part": "version", "name": "note", "old": 1, "new": 2}]


def test_check_tells_everything_that_can_be_known() -> None:
    found = check(Path("r.yaml"))
    assert len(found.graph.steps) == 10 and found.notes == ()
    Path("folder").mkdir()
    Path("r.yaml").write_text(
        "vars: {text: null, unused: 1}\nmatrix: {seed: [1]}\nsteps:\n  a: {use: note, text: '${text}', size: 2}\n"
        "  b: {use: join, model: some/model}\n"
    )
    assert check(Path("r.yaml")).notes == (
        "give `-o text=...` to run it",
        "step `b`: `model`: `some/model` is not here; it is looked up when the recipe runs",
        "variable `unused` is used nowhere (r.yaml:1)",
        "no step is made over the axis `seed`",
    )
    go_first = "steps:\n  one: {use: note, text: hu.txt}\n"
    Path("r.yaml").write_text(go_first)
    made_by = go().steps[0].artifact.path
    Path("r.yaml").write_text(
        f"vars: {{t: null}}\nsteps:\n  a: {{use: note, text: folder, size: x}}\n  b: {{use: nota}}\n"
        f"  c: {{use: join, model: out/steps/{made_by.name}}}\n  d: {{scores: hu.txt, use: page}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        check(Path("r.yaml"))
    assert "r.yaml:3" in str(caught.value) and "r.yaml:4" in str(caught.value), "several at once"
    Path("r.yaml").write_text(
        Path("r.yaml").read_text().replace("size: x", "size: 1").replace("nota", "note, text: hu.txt")
    )
    with pytest.raises(ConfigError) as caught:
        check(Path("r.yaml"))
    for part in ("folder `", "is empty", "is a note artifact; expected model", "hu.txt` is not an artifact"):
        assert part in caught.value.message


def test_the_example_of_the_docs_is_a_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All YAML blocks of docs/recipes.md, with the real verbs."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for name in ("texts/hu.txt", "texts/fi.txt", "model"):
        Path(name).write_text(name)
    page = (toys.ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    whole, conditions, matrix = blocks
    Path("r.yaml").write_text(whole)
    assert list(build(Path("r.yaml"), lenient=True).steps) == ["target", "tokenizer"]
    Path("r.yaml").write_text(matrix)
    graph = build(Path("r.yaml"))
    assert len([name for name in graph.steps if name.startswith("train")]) == 2 * 2 * 3 - 2
    assert graph.steps["train@hu,1,gentle"].wiring["data"] == FromStep("mix@hu")
    assert graph.steps["compare"].wiring["sets"] == {"hu": FromStep("text@hu"), "fi": FromStep("text@fi")}
    values = {"control": True, "lang": "hu", "quick": False, "way": "two words", "steps": 100}
    whens = [line.removeprefix("when: ").strip('"') for line in conditions.strip().splitlines()]
    assert [switched_on(when, Variables(values, frozenset()), None) for when in whens] == [True, True, True]


def accepts(schema: Any, value: Any, root: dict[str, Any]) -> bool:
    """A slow, obvious reading of the part of JSON Schema that is used."""
    if schema is True or schema == {}:
        return True
    if schema is False:
        return False
    kinds = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}
    if "$ref" in schema and not accepts(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root):
        return False
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = [
            number and (kind == "number" or isinstance(value, int)) if kind in ("number", "integer")
            else isinstance(value, kinds[kind]) for kind in wanted
        ]  # fmt: skip
        if not any(fits):
            return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        return False
    if "anyOf" in schema and not any(accepts(item, value, root) for item in schema["anyOf"]):
        return False
    if not all(accepts(item, value, root) for item in schema.get("allOf", ())):
        return False
    if "not" in schema and accepts(schema["not"], value, root):
        return False
    if "if" in schema and accepts(schema["if"], value, root) and not accepts(schema.get("then", True), value, root):
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if any(key not in value for key in schema.get("required", ())):
            return False
        rest = schema.get("additionalProperties", True)
        return all(accepts(known.get(key, rest), item, root) for key, item in value.items())
    if isinstance(value, list):
        return all(accepts(schema.get("items", True), item, root) for item in value)
    return True


def test_the_schema_accepts_recipes_and_refuses_slips(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.core.yaml import load_bytes, load_file

    schema = recipe_schema()
    assert accepts(schema, load_bytes(RECIPE.encode(), "r").values, schema)
    for bad in (
        "steps: {a: {use: nota}}", "steps: {a: {use: note, text: t, sise: 3}}", "steps: {a: {use: note}}",
        "stepps: {}", "steps: {note: {text: t, size: {}}}", "steps: {a: {text: t}}", "steps: {a: {use: join, mode: c}}",
    ):  # fmt: skip
        assert not accepts(schema, load_bytes(bad.encode(), "r").values, schema), bad
    monkeypatch.undo()
    real = recipe_schema()
    for path in sorted((toys.ROOT / "recipes").glob("*.yaml")):
        assert accepts(real, load_file(path).values, real), path
