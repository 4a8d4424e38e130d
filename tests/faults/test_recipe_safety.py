"""Recipes and workspaces from strangers: what they may not read, run, show or hang."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langadapt.core import yaml
from langadapt.core.artifact import open_artifact
from langadapt.core.errors import ConfigError, DataError, LangadaptError, SafetyError
from langadapt.core.manifest import MANIFEST, checksum
from langadapt.recipe.condition import switched_on
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import build
from langadapt.recipe.values import Variables
from langadapt.recipe.workspace import find_run
from tests.faults import toy
from tests.fixtures import toys

TOKEN = "hf_thisIsNoRealTokenButLooksLikeOne42"
TINY = "steps:\n  a: {use: note, text: a.txt}\n"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    toys.install(monkeypatch)
    (tmp_path / "ws").mkdir()
    monkeypatch.chdir(tmp_path / "ws")
    Path("a.txt").write_text("aaa")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path


def refused(text: str | bytes, *given_settings: str) -> LangadaptError:
    path = Path("r.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        build(path, tuple(Setting.parse(item) for item in given_settings))
    assert caught.value.exit_code == 2
    return caught.value


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "anchor"),
        ("steps:\n\ta: {use: note, text: a.txt}\n", "a tab in the indentation"),
        ("steps:\n  a: !!python/object/apply:os.system ['touch marker']\n", "tag"),
        ("steps: &s\n  a: {use: note, text: a.txt}\n", "anchor"),
        ("steps:\n  a: {use: note, text: a.txt}\n  a: {use: note, text: a.txt}\n", "twice"),
        ("steps:\n  a: {use: note, text: a.txt, use: join}\n", "twice"),
        ("steps:\n  a: {use: note, text: a.txt, size: no}\n", "`size`"),
        ("steps:\n  a: " + "[" * 3000 + "\n", "nested deeper"),
        ("vars: {x: 99999999999999999999999999}\n" + TINY, "64 bits"),
        ("vars: {x: 2026-11-24}\n" + TINY, "date"),
    ],
)
def test_row_49_no_object_is_made_and_the_line_is_told(here: Path, text: str, message: str) -> None:
    began = time.monotonic()
    error = refused(text)
    assert message in error.message and str(error.where).startswith("r.yaml")
    assert time.monotonic() - began < 60 and not Path("marker").exists()


def test_row_49_a_file_of_50_mb_is_not_read(here: Path) -> None:
    with Path("r.yaml").open("wb") as file:
        file.write(TINY.encode())
        file.truncate(50 * 1024**2)
    read = Path.stat(Path("r.yaml")).st_size
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes") as caught:
        build(Path("r.yaml"))
    assert read == 50 * 1024**2 and caught.value.exit_code == 2


PIECES = st.sampled_from(
    ["steps:", "vars:", "matrix:", "a:", "use: note", "use: join", "text: a.txt", "text: [a.txt, b]", "when: ${x} == 1",
     "when: (not", "matrix: [lang]", "lang: [hu, fi]", "exclude: [{lang: hu}]", "exclude: 3", "${x}", "$${", "${", "{",
     "}", "[", "]", "- ", "&a", "*a", "!!python/name:os.system", "<<: *a", "no", "null", "1e999", "0x", "\t", "\n",
     "\n  ", "\n    ", ": ", ", ", "'", '"', "|", ">", "#", "%YAML 1.1", "---", "\x00", "\ud800", "é", "\u2028", "a@b",
     "../x", "/etc/passwd", "~", "name: [1]", "size: 4k", "parts: {${lang}: a}", "2026-01-01", ".nan", "?"]
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.lists(PIECES, max_size=25).map("".join).map(lambda text: text.encode("utf-8", "surrogatepass")),
                 st.binary(max_size=200)))  # fmt: skip
def test_row_49_only_config_errors_come_out_of_the_loader(data: bytes) -> None:
    try:
        yaml.load_bytes(data, "fuzz")
    except ConfigError:
        return


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), PIECES,
              st.sampled_from(["a", "b", "note", "join", "a.txt", "lang", "${lang}", "${x.y}", "hu", "${x} in [1]"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5) | st.sampled_from(
        ["use", "text", "parts", "when", "matrix", "exclude", "lang", "size", "first", "${lang}", "x"]), inner,
        max_size=4)), max_leaves=12)  # fmt: skip
STEP = st.fixed_dictionaries({"use": st.sampled_from(["note", "join"]) | VALUES, "text": VALUES, "when": VALUES,
                              "matrix": st.sampled_from(["lang", ["lang"], ["lang", "x"], None, 3]) | VALUES,
                              "parts": VALUES}).flatmap(
    lambda whole: st.sets(st.sampled_from(sorted(whole)), min_size=1).map(
        lambda keys: {key: whole[key] for key in keys}))  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(vars_=VALUES, matrix=VALUES | st.just({"lang": ["hu", "fi"]}), steps=st.dictionaries(
    st.sampled_from(["a", "b", "c"]), STEP | VALUES, max_size=3), setting=st.text(max_size=12))  # fmt: skip
def test_row_49_only_config_errors_come_out_of_a_recipe(
    here: Path, vars_: Any, matrix: Any, steps: Any, setting: str
) -> None:
    """JSON is YAML: what is generated is a tree of anything, in the places of a recipe."""
    recipe = {"vars": vars_, "matrix": matrix, "steps": steps}
    Path("r.yaml").write_text(json.dumps(recipe, ensure_ascii=True), encoding="ascii")
    try:
        given_settings = (Setting.parse(f"a.size={setting}"),) if setting else ()
        build(Path("r.yaml"), given_settings, lenient=True)
    except (ConfigError, SafetyError):
        return


WORDS = st.sampled_from([
    "${x}", "${l}", "${y}", "${", "}", "(", ")", "[", "]", ",", "==", "=", "!=", "!", "in", "not", "and", "or", "true",
    "null", "1", "x", "'", '"', " ", "\\", "é", "\x00", "2026-01-01", "9" * 30,
])  # fmt: skip


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.one_of(st.lists(WORDS, max_size=20).map(" ".join), st.text(max_size=30)))
def test_row_49_only_config_errors_come_out_of_a_condition(text: str) -> None:
    try:
        assert switched_on(text, Variables({"x": 1, "l": ["a", 1]}, frozenset()), "r.yaml:1") in (True, False)
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps:\n  a: {use: note, text: [a]}\n", "reads its own output"),
        ("steps:\n  a: {use: join}\n  b: {use: score, base: a, adapted: a}\n  c: {use: page, scores: a}\n",
         "expects a scores, step `a` makes a model"),
        ("steps:\n  x: {use: note, text: [y]}\n  y: {use: note, text: [x]}\n", "cycle: `x` -> `y` -> `x`"),
        ("matrix: {l: [1]}\nsteps:\n  x: {use: note, text: [y], matrix: l}\n  y: {use: note, text: [x], matrix: l}\n",
         "cycle: `x@1` -> `y@1` -> `x@1`"),
        ("steps:\n  a: {use: note, text: [nothing.txt]}\n", "neither a step of this recipe nor a file"),
    ],
)  # fmt: skip
def test_row_48_a_graph_that_cannot_run(here: Path, text: str, message: str) -> None:
    assert message in refused(text).message
    assert sorted(path.name for path in Path().iterdir()) == ["a.txt", "r.yaml"], "nothing was run"


@pytest.mark.parametrize(
    "value", ["../secret.txt", "a/../../secret.txt", "link.txt", "linked/secret.txt", "/etc/passwd"]
)
@pytest.mark.parametrize("how", ["field", "variable", "axis", "brought"])
def test_row_52_no_path_of_a_recipe_leads_out(here: Path, value: str, how: str) -> None:
    Path("link.txt").symlink_to(here / "secret.txt")
    Path("linked").symlink_to(here)
    text = {
        "field": f"steps:\n  a: {{use: note, text: {value}}}\n",
        "variable": f"vars: {{v: {value}}}\nsteps:\n  a: {{use: note, text: '${{v}}'}}\n",
        "axis": "matrix: {v: [secret.txt]}\nsteps:\n  a: {use: note, matrix: v, text: '../${v}'}\n",
        "brought": f"matrix: {{v: {{x: {{t: {value}}}}}}}\nsteps:\n  a: {{use: note, matrix: v, text: '${{v.t}}'}}\n",
    }[how]
    Path("r.yaml").write_text(text)
    with pytest.raises(SafetyError) as caught:
        build(Path("r.yaml"))
    assert caught.value.exit_code == 6 and (here / "secret.txt").read_text() == "secret"


def forged(made: Path, name: str) -> None:
    """A manifest that names one more file, with a checksum that fits."""
    manifest = json.loads((made / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": Path(made, name).stat().st_size, "sha256": "0" * 64}
    manifest["checksum"] = checksum(manifest)
    (made / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/passwd", "deep/../../../secret.txt"])
def test_row_52_no_manifest_names_a_file_elsewhere(here: Path, name: str) -> None:
    made = toy.make(Path("made")).artifact.path
    forged(made, name)
    with pytest.raises(SafetyError) as caught:
        open_artifact(made)
    assert caught.value.exit_code == 6


def test_row_52_a_link_in_an_artifact_must_lead_to_the_bytes_of_its_digest(here: Path) -> None:
    """Hub caches hold links, so they are allowed; what they lead to is not taken on trust."""
    made = toy.make(Path("made")).artifact.path
    (made / "link.txt").symlink_to(here / "secret.txt")
    forged(made, "link.txt")
    with pytest.raises(DataError, match="SHA-256"):
        open_artifact(made).verify()


def test_row_53_names_are_never_a_shell_or_an_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.recipe.runner import run

    monkeypatch.setenv("SECRET_PLACE", str(here / "secret.txt"))
    name = "a; touch marker; $(touch marker) `touch marker` $SECRET_PLACE .txt"
    Path(name).write_text("odd")
    Path("r.yaml").write_text(
        f"vars: {{t: {json.dumps(name)}}}\nsteps:\n  a: {{use: note, text: '${{t}}', lang: '$(touch marker)'}}\n"
    )
    run(build(Path("r.yaml")), Path("out"))
    assert not list(here.rglob("marker"))
    for text in ("${SECRET_PLACE}", "${env.HOME}", "${HOME}"):
        assert "unknown variable" in refused(f"steps:\n  a: {{use: note, text: '{text}'}}\n").message
    assert "neither a step" in refused("steps:\n  a: {use: note, text: $SECRET_PLACE}\n").message
    with pytest.raises(ConfigError):
        build(Path("r.yaml"), (Setting.parse("a.text=$SECRET_PLACE"),))


def test_row_54_no_template_of_a_model_or_of_a_name_is_rendered(here: Path) -> None:
    from langadapt.recipe.scaffold import Wish, write_workspace

    attack = "{{ cycler.__init__.__globals__.os.system('touch marker') }}${model}"
    Path(attack).mkdir()
    recipe = write_workspace(Path("new"), Wish("el", ["a.txt"], attack))
    assert "cycler" in (recipe.parent / "overrides.json").read_text() and "cycler" not in recipe.read_text()
    inside = write_workspace(Path("{% raw %}"), Wish("el", ["a.txt"], "some/model"))
    assert yaml.load_file(inside).values["name"] == "{% raw %}"
    assert not list(here.rglob("marker"))


def test_row_36_codes_that_read_as_nothing_stay_text(here: Path) -> None:
    codes = ["no", "nan", "na", "null", "on", "off", "yes", "zh-Hant"]
    quoted = ", ".join(json.dumps(code) for code in codes)
    Path("r.yaml").write_text(
        f"matrix: {{lang: [{quoted}]}}\nsteps:\n  a: {{use: note, matrix: lang, text: a.txt, lang: '${{lang}}'}}\n"
    )
    graph = build(Path("r.yaml"))
    assert [step.values["lang"] for step in graph.steps.values()] == codes
    assert list(graph.steps) == [f"a@{code}" for code in codes]
    again = build(Path("r.yaml"), (Setting.parse("lang=[no, nan]"),))
    assert [step.values["lang"] for step in again.steps.values()] == ["no", "nan"]
    Path("r.yaml").write_text("vars: {l: hu}\nsteps:\n  a: {use: note, text: a.txt, lang: '${l}'}\n")
    assert build(Path("r.yaml"), (Setting.parse("l=nan"),)).steps["a"].values["lang"] == "nan"


BLOCKED = """
import socket, sys
def refuse(*arguments, **more):
    open({marker!r}, "a").write(repr(arguments[:1]) + "\\n")
    raise OSError("the network is off")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
"""


def shell(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "PYTHONPATH": f"{folder / 'site'}:{toys.ROOT}", "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN, **extra,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder / "ws", env=environment, capture_output=True, timeout=170
    )


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder whose processes, and theirs, cannot reach the network: each try leaves a line in `tried`."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKED.format(marker=str(tmp_path / "tried")))
    (tmp_path / "ws").mkdir()
    lines = "".join(f"ez a {number}. magyar mondat a próbához, elég hosszú és mindig más\n\n" for number in range(60))
    (tmp_path / "ws" / "a.txt").write_text(lines, encoding="utf-8")
    return tmp_path


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(180)
def test_rows_55_and_56_no_token_is_shown_and_no_network_is_tried(blocked: Path, tiny: Path) -> None:
    workspace = blocked / "ws"
    (workspace / "langadapt.yaml").write_text(
        "vars: {model: null}\nsteps:\n  target: {use: prepare, text: a.txt, lang: hu, min_lang_probability: 0}\n"
        "  tokenizer: {use: extend-vocab, model: '${model}', corpus: target, lang: hu, size: 20, min_count: 2}\n"
    )
    cache = str(blocked / "cache")
    command = ("-m", "langadapt")
    said = b""
    for arguments, code in (
        (("run", "-o", f"model={tiny}", "-v"), 0),
        (("run", "--debug", "-o", "model=nobody/nothing"), 3),
        (("run", "--debug", "-o", "target.lang=xx-nonsense", "-o", f"model={tiny}"), None),
        (("show", "steps/target", "--json"), 0),
    ):
        done = shell(blocked, *command, *arguments, LANGADAPT_CACHE=cache, HF_HUB_OFFLINE="1", HF_HOME=cache)
        assert code is None or done.returncode == code, done.stderr.decode()
        said += done.stdout + done.stderr
    assert TOKEN.encode() not in said
    assert TOKEN.encode() not in everything_written(blocked)
    assert not (blocked / "tried").exists(), (blocked / "tried").read_text()


def test_row_55_a_crash_shows_no_secret(blocked: Path) -> None:
    (blocked / "ws" / "r.yaml").write_text("steps:\n  a: {use: note, text: a.txt, act: crash}\n")
    done = shell(blocked, "-m", "tests.fixtures.toys", "run", "r.yaml", "out")
    assert done.returncode == 1 and b"ZeroDivisionError" in done.stderr
    assert TOKEN.encode() not in done.stdout + done.stderr + everything_written(blocked)


def test_a_workspace_of_somebody_else_says_what_it_brings(here: Path) -> None:
    """Recorded settings count as typed; a workspace that was copied here shows all of them, in `status` as well."""
    Path("langadapt.yaml").write_text("vars: {t: null}\nsteps:\n  a: {use: note, text: '${t}'}\n")
    Path("overrides.json").write_text(json.dumps({"vars": {"t": str(here / "secret.txt")}}))
    _, _, found = find_run(Path())
    assert [item.key for item in found] == ["vars.t"]
    Path("overrides.json").write_text(json.dumps({"vars": ["t"]}))
    with pytest.raises(ConfigError, match=r"overrides\.json"):
        find_run(Path())
