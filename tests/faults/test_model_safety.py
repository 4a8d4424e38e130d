"""Code inside a model folder is refused, and nothing of it is run."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from langadapt.core.errors import SafetyError
from langadapt.model.load import load_model, resolve
from langadapt.model.tables import open_tables
from tests.faults.test_model_faults import copy, edit_json, initialise

__all__ = ["copy"]


class Bomb:
    """Pickled, it writes a file as soon as anybody opens it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "opened")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_row_50_pickle_weights_are_never_opened(name: str, copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (copy / "model.safetensors").unlink()
    (copy / name).write_bytes(pickle.dumps(Bomb(marker)))
    for attempt in (lambda: resolve(str(copy)), lambda: load_model(copy), lambda: open_tables(copy)):
        with pytest.raises(SafetyError, match="can run code") as caught:
            attempt()
        assert caught.value.exit_code == 6 and "safetensors" in (caught.value.hint or "")
    assert not marker.exists()
    pickle.loads((copy / name).read_bytes())
    assert marker.exists(), "the bomb does not work, so this test shows nothing"


def test_row_50_a_pickle_beside_safetensors_is_left_alone(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(marker)))
    made = initialise(copy, tmp_path)
    assert not marker.exists() and not (made.path / "pytorch_model.bin").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_row_51_remote_code_is_refused(file: str, copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n", encoding="utf-8")
    key = "AutoTokenizer" if file.startswith("tokenizer") else "AutoModelForCausalLM"
    edit_json(copy / file, lambda content: content.update(auto_map={key: "evil.Evil"}))
    for attempt in (lambda: resolve(str(copy)), lambda: load_model(copy), lambda: initialise(copy, tmp_path)):
        shutil.rmtree(tmp_path / "tokenizer", ignore_errors=True)
        with pytest.raises(SafetyError, match="auto_map") as caught:
            attempt()
        assert caught.value.exit_code == 6
    assert not marker.exists()
