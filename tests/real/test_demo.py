"""What the demo promises, read from the run that `make demo` left in work/quickstart-hu."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(os.environ.get("LANGADAPT_DEMO_RUN", "work/quickstart-hu")).resolve()

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (RUN / "summary.json").is_file(), reason="run `make demo` first"),
]


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return json.loads((RUN / "summary.json").read_text())


def test_hungarian_bits_per_byte(summary: dict[str, Any]) -> None:
    for scores in summary["languages"]["hu"]["sets"].values():
        bits = scores["bits_per_byte"]
        assert bits["ratio"] <= 0.67
        assert bits["delta_high"] < 0 and bits["verdict"] == "better"
        assert bits["adapted"] < bits["uniform_adapted"], "below the null line"


def test_hungarian_tokens_per_word(summary: dict[str, Any]) -> None:
    tokens = summary["languages"]["hu"]["tokens_per_word"]
    assert tokens["adapted"] <= 0.6 * tokens["base"]


def test_english_is_kept(summary: dict[str, Any]) -> None:
    sets = summary["languages"]["en"]["sets"]
    assert len(sets) == 2, "held-out text of the replay's sources, and another domain"
    for name, scores in sets.items():
        assert scores["bits_per_byte"]["ratio"] <= 1.03, name
        assert scores["segments"] >= 50
    assert summary["languages"]["en"]["held_out_lines_same_ids"] >= 0.995


def test_models_load_and_generate_without_langadapt(summary: dict[str, Any]) -> None:
    code = (
        "import sys, torch\n"
        "sys.modules['langadapt'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "c = [{'role': 'user', 'content': 'Szia!'}]\n"
        "x = t.apply_chat_template(c, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "y = m.generate(**x, max_new_tokens=8, do_sample=False)\n"
        "assert y.shape[1] > x['input_ids'].shape[1]\n"
        "assert m.get_input_embeddings().weight.shape[0] >= len(t)\n"
    )
    for name in ("base", "adapted"):
        subprocess.run([sys.executable, "-c", code, summary["models"][name]], check=True, cwd="/", timeout=300)


def test_chat_template_is_the_same(summary: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}]
    ids = [
        AutoTokenizer.from_pretrained(summary["models"][name]).apply_chat_template(chat, return_dict=True)["input_ids"]
        for name in ("base", "adapted")
    ]
    assert ids[0] == ids[1]


def test_every_artifact_of_the_run_verifies() -> None:
    from langadapt.core.artifact import open_artifact

    folders = [path for path in (RUN / "steps").iterdir() if path.is_symlink()]
    assert len(folders) >= 8
    for folder in folders:
        open_artifact(folder.resolve()).verify()


def test_the_page_is_one_file() -> None:
    page = (RUN / "report.html").read_text()
    assert "<script" not in page and "http-equiv" not in page
    assert 'src="http' not in page and "url(" not in page.replace("url(data:", "")
