"""The quickstart recipe with `new_tokens: auto`, up to the rows of the new tokens."""

import json
from pathlib import Path

from langadapt.core.artifact import open_artifact
from tests.e2e.chain import go, texts


def test_a_recipe_finds_the_size_and_makes_as_many_rows(tmp_path: Path, tiny: Path) -> None:
    given = texts(tmp_path)
    del given["other_text"]
    auto = {**given, "new_tokens": "auto", "tokenizer.max_auto_size": "700"}
    done = go(tmp_path / "run", tiny, auto, "--until", "init")
    assert done.returncode == 0, done.stderr

    steps = tmp_path / "run" / "steps"
    made = open_artifact((steps / "tokenizer").resolve())
    found = made.facts["auto"]
    assert made.facts["added"] == found["size"] and 100 <= found["size"] <= 700, found
    assert json.loads(made.file("curve.json").read_text())["auto"] == found
    rows = open_artifact((steps / "init").resolve()).facts["rows"]
    assert rows == made.facts["vocabulary_after"] == made.facts["vocabulary_before"] + found["size"]
