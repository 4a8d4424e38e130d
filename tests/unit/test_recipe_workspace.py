"""Workspaces: a verb without inputs runs the recipe up to it, flags are remembered, `init` writes what `run` reads."""

import json
from pathlib import Path

import pytest

from langadapt.core.errors import ConfigError, DataError, OutputError, SafetyError
from langadapt.core.progress import Event, Note
from langadapt.recipe import workspace
from langadapt.recipe.graph import build
from langadapt.recipe.plan import Plan
from langadapt.recipe.scaffold import Wish, write_workspace
from langadapt.recipe.sources import FromPath, FromStep
from langadapt.recipe.workspace import VerbDone, find_run, run_folder, run_verb
from tests.fixtures import toys

RECIPE = """
vars: {control: false}
steps:
  hungarian: {use: note, text: a.txt, lang: hu}
  finnish: {use: note, text: a.txt, lang: fin, size: 2}
  join: {parts: {hu: hungarian, fi: finnish}}
  second: {use: join, when: "${control}", parts: {hu: hungarian}}
"""


@pytest.fixture
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toys.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("aaa")
    Path("langadapt.yaml").write_text(RECIPE)


def ran(result: VerbDone | Plan) -> dict[str, str]:
    assert isinstance(result, VerbDone)
    return {step.id: step.state for step in result.run.steps}


def refused(verb: str, **options: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        run_verb(verb, {}, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2 and not Path("steps").exists()
    return caught.value


@pytest.mark.usefixtures("_toys")
def test_a_verb_runs_the_recipe_up_to_its_steps_and_remembers_flags() -> None:
    assert ran(run_verb("note", {}, lang="hun")) == {"hungarian": "new"}
    result = run_verb("note", {"size": 5}, lang="hu")
    assert ran(result) == {"hungarian": "new"}
    assert isinstance(result, VerbDone) and result.artifact.facts["size"] == 5
    assert result.artifact.path.parent == Path("steps").absolute()
    assert json.loads(Path("overrides.json").read_text()) == {"hungarian": {"size": 5}}
    heard: list[Event] = []
    assert ran(run_verb("join", {}, listener=heard.append)) == {
        "hungarian": "up to date", "finnish": "new", "join": "new",
    }  # fmt: skip
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert "hungarian.size=5" in notes[0]
    run_verb("note", {"size": 6}, lang="hu")
    assert json.loads(Path("overrides.json").read_text()) == {"hungarian": {"size": 6}}


@pytest.mark.usefixtures("_toys")
def test_a_dry_run_records_nothing() -> None:
    result = run_verb("note", {"size": 5}, dry_run=True)
    assert isinstance(result, Plan) and [look.step.id for look in result.looks] == ["hungarian", "finnish"]
    assert sorted(path.name for path in Path().iterdir()) == ["a.txt", "langadapt.yaml"]


@pytest.mark.usefixtures("_toys")
def test_what_the_recipe_does_not_know_is_told() -> None:
    error = refused("note", lang="el")
    assert "does not know the language `el`; it knows: fi, hu" in error.message
    assert "no step of the recipe uses it" in refused("page").message
    assert "not a language" in refused("note", lang="xx1").message
    with pytest.raises(ConfigError, match="size"):
        run_verb("note", {"size": "x"})
    assert not Path("overrides.json").exists(), "what cannot be used is not recorded"


@pytest.mark.usefixtures("_toys")
def test_a_path_in_overrides_is_kept_absolute_and_a_flag_wins(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("o")
    run_verb("note", {"text": ["other.txt"]}, lang="hu")
    kept = json.loads(Path("overrides.json").read_text())
    assert kept == {"hungarian": {"text": [str(tmp_path / "other.txt")]}}
    graph = workspace.load(Path("langadapt.yaml"), (workspace.Setting("hungarian.text", ["a.txt"]),))
    assert graph.steps["hungarian"].wiring["text"] == (FromPath(str(tmp_path / "a.txt")),)


@pytest.mark.usefixtures("_toys")
def test_status_finds_the_run_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.recipe.document import Setting
    from langadapt.recipe.runner import run

    Path("r.yaml").write_text("vars: {t: null}\nsteps:\n  one: {use: note, text: '${t}'}\n")
    settings = (Setting.parse("t=a.txt"),)
    run(build(Path("r.yaml"), settings), Path("work/r"), settings=settings)
    graph, folder, found = find_run(Path("work/r"))
    assert (folder, found) == (Path("work/r"), settings)
    Path("langadapt.yaml").unlink()
    assert find_run(None)[1] == Path("work/r")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    graph, _, _ = find_run(tmp_path / "work/r")
    assert graph.steps["one"].wiring["text"] == (FromPath(str(tmp_path / "a.txt")),)
    with pytest.raises(ConfigError, match="neither a workspace"):
        find_run(tmp_path)


def test_where_a_recipe_runs() -> None:
    assert run_folder(Path("recipes/x.yaml"), None) == Path("work/x")
    assert run_folder(Path("ws/langadapt.yaml"), None) == Path("ws")
    assert run_folder(Path("ws/langadapt.yaml"), Path("o")) == Path("o")


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws" / "model").mkdir(parents=True)
    (tmp_path / "ws" / "el text: 1.txt").write_text("κείμενο")
    (tmp_path / "en.txt").write_text("text")
    return tmp_path / "ws"


def test_init_writes_a_recipe_that_run_accepts(texts: Path) -> None:
    recipe = write_workspace(texts, Wish("ell", ["ws/el text: 1.txt"], "ws/model", "eng", ["ws/el text: 1.txt"]))
    graph = build(recipe)
    assert list(graph.steps) == [
        "target", "replay", "tokenizer", "init", "mix", "cpt", "evaluate", "report",
    ]  # fmt: skip
    assert graph.steps["target"].values["lang"] == "el"
    assert graph.steps["mix"].wiring["corpora"] == {"el": FromStep("target"), "en": FromStep("replay")}
    assert not (texts / "overrides.json").exists()
    assert "outside" not in recipe.read_text()


def test_init_without_source_text_says_what_is_lost(texts: Path) -> None:
    recipe = write_workspace(texts, Wish("el", ["ws/el text: 1.txt"], "some/model"))
    graph = build(recipe)
    assert list(graph.steps) == ["target", "tokenizer", "init", "mix", "cpt", "evaluate", "report"]
    assert "nothing measures what was forgotten" in recipe.read_text()
    assert graph.steps["init"].wiring["model"] == FromPath("some/model")


def test_init_records_paths_that_lead_out(texts: Path, tmp_path: Path) -> None:
    recipe = write_workspace(texts, Wish("el", ["ws/el text: 1.txt"], "ws/model", "en", ["en.txt"]))
    assert json.loads((texts / "overrides.json").read_text()) == {"vars": {"source_text": [str(tmp_path / "en.txt")]}}
    graph = workspace.load(recipe, ())
    assert graph.steps["replay"].wiring["text"] == (FromPath(str(tmp_path / "en.txt")),)
    with pytest.raises(SafetyError):
        recipe.write_text(recipe.read_text().replace("model: model", "model: ../en.txt"))
        workspace.load(recipe, ())


def test_init_refuses(texts: Path) -> None:
    wish = Wish("el", ["ws/el text: 1.txt"], "some/model")
    with pytest.raises(DataError, match="does not exist"):
        write_workspace(texts, Wish("el", ["nothing.txt"], "some/model"))
    with pytest.raises(ConfigError):
        write_workspace(texts, Wish("greek", ["ws/el text: 1.txt"], "some/model"))
    with pytest.raises(ConfigError, match="both"):
        write_workspace(texts, Wish("eng", ["en.txt"], "some/model", "en", ["en.txt"]))
    assert not (texts / "langadapt.yaml").exists()
    recipe = write_workspace(texts, wish)
    before = recipe.read_bytes()
    with pytest.raises(OutputError) as caught:
        write_workspace(texts, wish)
    assert caught.value.exit_code == 4 and recipe.read_bytes() == before


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_every_recipe_holds(texts: Path, recipe: str) -> None:
    from langadapt.recipe.document import Setting

    given = ("model=ws/model", "target_text=en.txt", "source_text=en.txt")
    graph = build(RECIPES / recipe, tuple(Setting.parse(text) for text in given))
    assert any(graph.verbs[name].name == "evaluate" for name in graph.steps), "no recipe ends without a measurement"


@pytest.mark.parametrize("control", ["true", "false"])
@pytest.mark.parametrize("other", [True, False])
def test_the_quickstart_recipe_holds(texts: Path, control: str, other: bool) -> None:
    from langadapt.recipe.document import Setting

    given = ["model=ws/model", "target_text=en.txt", "source_text=en.txt", f"control={control}"]
    given += ["other_text=en.txt"] if other else []
    graph = build(RECIPES / "quickstart-hu.yaml", tuple(Setting.parse(text) for text in given))
    assert ("control" in graph.steps, "control-mix" in graph.steps) == (control == "true",) * 2
    assert ("other" in graph.steps) is other
    assert (graph.steps["evaluate"].wiring.get("control") == FromStep("control")) == (control == "true")
    assert graph.steps["tokenizer"].values["size"] in (4000, "4k")


@pytest.mark.usefixtures("_toys")
def test_flags_of_a_verb_over_a_matrix() -> None:
    Path("langadapt.yaml").write_text(
        "matrix: {lang: [hu, fi], seed: [1, 2]}\nsteps:\n"
        "  one: {use: note, matrix: [lang, seed], text: a.txt, lang: '${lang}', seed: '${seed}'}\n"
    )
    assert ran(run_verb("note", {"size": 5}, lang="hu")) == {"one@hu,1": "new", "one@hu,2": "new"}
    kept = json.loads(Path("overrides.json").read_text())
    assert kept == {"one@hu,1": {"size": 5}, "one@hu,2": {"size": 5}}
    narrowed = workspace.load(Path("langadapt.yaml"), (workspace.Setting.parse("seed=[2, 3]"),))
    sizes = {step.id: step.values.get("size") for step in narrowed.steps.values()}
    assert sizes == {"one@hu,2": 5, "one@hu,3": None, "one@fi,2": None, "one@fi,3": None}
    run_verb("note", {"size": 6})
    assert json.loads(Path("overrides.json").read_text()) == {"one": {"size": 6}}
    sizes = {step.id: step.values.get("size") for step in workspace.load(Path("langadapt.yaml"), ()).steps.values()}
    assert set(sizes.values()) == {6}, "what was said last holds"
