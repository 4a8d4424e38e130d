"""Data and settings of `cpt` that would fail later are refused at once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core import verb
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.validate import validate
from tests.fixtures.tiny import tiny_corpus


def test_blocks_longer_than_the_positions_of_the_model_are_refused(tmp_path: Path, tiny: Path) -> None:
    longer = shutil.copytree(tiny, tmp_path / "longer")
    config = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    data = langadapt.mix(
        out=tmp_path / "data", model=longer, corpora={"hu": str(tiny_corpus(tmp_path / "text", "hu", 20))},
        block_tokens=1024, document_separator="<|endoftext|>",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"have 1,024 tokens, `.*` has 512 positions"):
        langadapt.cpt(out=tmp_path / "out", model=tiny, data=data, steps=1)


@pytest.mark.parametrize(
    ("values", "field"),
    [({"betas": (0.9, 1.0)}, "betas"), ({"betas": (-0.1, 0.9)}, "betas"), ({"threads": 100_000}, "threads"),
     ({"lang": "magyar nyelv"}, "lang")],
)  # fmt: skip
def test_settings_that_would_fail_later_are_refused_at_once(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        validate(verb.load("cpt").config, {"model": "m", "data": "d", **values})


def test_the_language_is_written_in_its_short_form() -> None:
    # evaluate compares it with what corpora declare
    assert validate(verb.load("cpt").config, {"model": "m", "data": "d", "lang": "hun_Latn"}).lang == "hu"
