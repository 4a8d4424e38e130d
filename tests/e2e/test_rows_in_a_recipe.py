"""Rows of new tokens compared, chosen and refined by a recipe: the same verbs, names and bytes as from Python."""

import json
import subprocess
import sys
from pathlib import Path

from langadapt.core.artifact import open_artifact
from tests.fixtures.refined import place

RECIPE = """
vars: {base: null, text: null, english: null}
steps:
  tokenizer: {use: extend-vocab, model: "${base}", corpus: "${text}", guard: ["${english}"], size: 20, min_count: 2}
  compare: {use: compare-embeddings, model: "${base}", tokenizer: tokenizer, corpus: "${text}",
            source_text: "${english}", methods: [mean, subtoken-mean], target_bytes: 600, source_bytes: 300}
  init: {use: init-embeddings, model: "${base}", tokenizer: tokenizer, method: subtoken-mean}
  refine: {use: refine-embeddings, model: init, corpus: "${text}", source: "${english}", steps: 3, set_bytes: 600,
           held_out_snippets: 4, segment_bytes: 100, context_bytes: 100}
"""
CALL = """
import sys
import langadapt
langadapt.refine_embeddings(
    sys.argv[1], sys.argv[2], source=sys.argv[3], out=sys.argv[4],
    steps=3, set_bytes=600, held_out_snippets=4, segment_bytes=100, context_bytes=100,
)
"""


def test_a_recipe_compares_makes_and_refines_rows(tmp_path: Path) -> None:
    given = place(tmp_path / "given")
    recipe = tmp_path / "rows.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "langadapt", "run", str(recipe), "--out", str(tmp_path / "run"), "--json"]
    for name, path in (("base", given.base), ("text", given.corpus), ("english", given.source)):
        command += ["-o", f"{name}={path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    steps = {name: (tmp_path / "run" / "steps" / name).resolve() for name in ("compare", "init", "refine")}
    picked = json.loads((steps["compare"] / "comparison.json").read_text(encoding="utf-8"))["pick"]
    assert picked["method"] in ("mean", "subtoken-mean")
    refined = open_artifact(steps["refine"])
    assert refined.facts["refined"] >= 1
    # in a process of its own, as the recipe's step was: what earlier tests left in this one is no part of the promise
    call = [
        sys.executable,
        "-c",
        CALL,
        str(steps["init"]),
        str(given.corpus),
        str(given.source),
        str(tmp_path / "again"),
    ]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "again"
    assert (again / "model.safetensors").read_bytes() == (steps["refine"] / "model.safetensors").read_bytes()
