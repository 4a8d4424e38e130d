"""What tests of runs that are stopped, broken or branched share."""

import json
from pathlib import Path

import pytest

from langadapt.core import interrupt
from tests.fixtures.tiny import tiny_model


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough that moments are quantised (4,096 numbers a tensor), with dropout in its attention."""
    folder = tiny_model(tmp_path_factory.mktemp("models") / "medium", width=64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}))
    return folder


@pytest.fixture
def notes() -> list[str]:
    interrupt._seen.clear()
    return []
