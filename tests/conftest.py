"""What every test shares: no network, a cache of its own, one thread, and three small models."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before transformers is imported anywhere, here or in a child process.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

import langadapt
from tests.fixtures.tiny import tiny_corpus, tiny_model


def pytest_configure(config: pytest.Config) -> None:
    """Bytes and figures that tests know are a CPU's, so a GPU is hidden; `pytest -m real` has tests for one."""
    if config.option.markexpr != "real":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LANGADAPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _plain_surroundings() -> None:
    """What CI systems and terminals say of themselves changes what is drawn; a test that wants it says so itself."""
    for name in ("CI", "TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Fault row 56: everything passes with the network off, so that is how everything runs."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        raise AssertionError(f"a test tried to reach the network: {address}")

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", refuse)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _timed_at_a_glance() -> None:
    """A price times a layer for a second and a half, so that it is good to some per cent: no test needs that."""
    from langadapt.train import cost

    timed = cost._time
    cost._time = lambda job, device, budget_seconds: timed(job, device, min(budget_seconds, 0.05))


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices of a busy machine say so, and the machine that runs the tests is one; a test that wants it says so."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model of width 32. Read only: tests copy it before they change it."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of width 32 whose head is a matrix of its own. Read only."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny-untied", tied=False)


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model of width 256: wide enough that the number of threads changes the last bits. Read only."""
    return tiny_model(tmp_path_factory.mktemp("models") / "wide", width=256)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Two languages, one of them replayed, in blocks of 32 tokens for the tiny model. Read only."""
    folder = tmp_path_factory.mktemp("data")
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 150)) for lang in ("hu", "en")}
    made = langadapt.mix(
        out=folder / "data", model=tiny, corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    return Path(made.path)
