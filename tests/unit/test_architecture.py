"""The house rules, checked on the syntax tree of every module: imports go one way, nothing unsafe or hidden is used."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import langadapt

PACKAGE = Path(langadapt.__file__).parent
ROOMS = {"corpus", "vocab", "embed", "mixture", "select", "train", "intervene", "evaluate", "report"}
LAYER = {"core": 0, "model": 1, **dict.fromkeys(ROOMS, 2), "steps": 3, "recipe": 4, "cli": 5}
HEAVY = {"torch", "transformers", "datasets", "peft", "tokenizers", "safetensors"}
MAX_LINES = 400
FILES = sorted(PACKAGE.rglob("*.py"))
# (module, attribute): calls that hide state, run code from data, or bypass the one place that may do it
FORBIDDEN_CALLS = {
    ("sys", "exit"), ("os", "system"), ("os", "popen"), ("torch", "load"), ("torch", "manual_seed"), ("yaml", "load"),
    ("random", "seed"), ("random", "random"), ("random", "shuffle"), ("random", "choice"), ("random", "sample"),
}  # fmt: skip
GLOBAL_NUMPY_RANDOM_ALLOWED = {"Generator", "Philox"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def one_way_faults(path: Path, tree: ast.AST) -> list[str]:
    room = room_of(path)
    if room not in LAYER:  # __init__.py, __main__.py and notebook.py bind the verbs lazily
        return []
    faults = []
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] != "langadapt" or len(parts) < 2 or parts[1] not in LAYER:
            continue
        other = parts[1]
        if other != room and LAYER[other] >= LAYER[room]:
            faults.append(f"{room} imports {other}")
    return faults


def forbidden_faults(tree: ast.AST, room: str) -> list[str]:
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            faults.append(f"line {node.lineno}: naked assert")
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
        ):
            faults.append(f"line {node.lineno}: broad except")
        if isinstance(node, ast.Call):
            faults += call_faults(node, room)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("np.random.", "numpy.random.")):
            name = ast.unparse(node).split(".")[2]
            if name not in GLOBAL_NUMPY_RANDOM_ALLOWED:
                faults.append(f"line {node.lineno}: global numpy random state ({name})")
    faults += [f"imports {name}" for name in imported(tree) if name.split(".")[0] in ("pickle", "click", "random")]
    return faults


def call_faults(node: ast.Call, room: str) -> list[str]:
    where, faults = f"line {node.lineno}", []
    function = node.func
    if isinstance(function, ast.Name) and function.id in ("print", "eval", "exec"):
        faults.append(f"{where}: {function.id}()")
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        pair = (function.value.id, function.attr)
        if pair in FORBIDDEN_CALLS:
            faults.append(f"{where}: {'.'.join(pair)}()")
    for keyword in node.keywords:
        if keyword.arg == "shell" and getattr(keyword.value, "value", None) is True:
            faults.append(f"{where}: shell=True")
        if keyword.arg == "trust_remote_code" and getattr(keyword.value, "value", None) is True:
            faults.append(f"{where}: trust_remote_code=True")
    return faults


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Files that import each other in a circle, for types and inside functions too; none: the whole can be sorted."""
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        return [error.args[1]]
    return []


def declares_options(tree: ast.Module) -> bool:
    names = {"Config", "Options"}
    return any(isinstance(node, ast.ClassDef) and node.name in names for node in tree.body)


def heavy_faults(path: Path, tree: ast.Module) -> list[str]:
    """A file that declares a config must be cheap to import: `--help` and `list` read declarations only."""
    if not (declares_options(tree) or room_of(path) in ("core", "steps", "recipe", "cli")):
        return []
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    return [f"imports {name} at module level" for name in imported(top) if name.split(".")[0] in HEAVY]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_house_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    faults = one_way_faults(path, tree) + forbidden_faults(tree, room_of(path)) + heavy_faults(path, tree)
    if len(text.splitlines()) > MAX_LINES:
        faults.append(f"{len(text.splitlines())} lines: past {MAX_LINES} it is two rooms")
    if text.strip() and ast.get_docstring(tree) is None:
        faults.append("no module docstring")
    assert not faults, "\n".join(faults)


def test_no_two_files_need_each_other() -> None:
    names = {".".join(("langadapt", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    imports = {}
    for name, path in names.items():
        taken = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
        imports[name] = {known for one in taken for known in (one, one.rpartition(".")[0]) if known in names}
    assert sum(map(len, imports.values())) > len(names)
    assert circles(imports) == []


def test_the_circle_rule_can_fail() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_every_public_function_has_annotations_and_a_docstring() -> None:
    missing = []
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None and node.name not in ("Options", "Config"):
                    missing.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: no docstring")
                if isinstance(node, ast.FunctionDef) and node.returns is None:
                    missing.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: no return annotation")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("room", "source", "fault"),
    [
        ("core", "from langadapt.model.load import resolve", "core imports model"),
        ("vocab", "from langadapt.embed import rowmap", "vocab imports embed"),
        ("train", "import langadapt.steps.cpt", "train imports steps"),
    ],
)
def test_the_one_way_rule_can_fail(room: str, source: str, fault: str) -> None:
    assert one_way_faults(PACKAGE / room / "invented.py", ast.parse(source)) == [fault]


@pytest.mark.parametrize(
    "source",
    ["print(1)", "sys.exit(1)", "import pickle", "torch.load('x')", "subprocess.run('ls', shell=True)", "assert x",
     "try:\n  pass\nexcept Exception:\n  pass", "np.random.rand(3)", "yaml.load(x)"],
)  # fmt: skip
def test_the_forbidden_list_can_fail(source: str) -> None:
    assert forbidden_faults(ast.parse(source), "core")


def test_every_test_that_the_reliability_page_names_exists() -> None:
    root = PACKAGE.parent
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", (root / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (root / file).read_text("utf-8")]
    assert not missing
