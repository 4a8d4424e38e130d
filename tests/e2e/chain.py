"""The quickstart recipe on a tiny model: how the end-to-end tests start it."""

import subprocess
import sys
from pathlib import Path

from tests.fixtures.tiny import tiny_corpus

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "quickstart-hu.yaml"
# The text is in made-up languages, "hu" and "en" are only labels: no language check.
SMALL = {
    "new_tokens": "60",
    "steps": "12",
    "batch_tokens": "256",
    "block_tokens": "64",
    "learning_rate": "3.0e-3",
    "set_bytes": "3kB",
    "tokenizer.min_count": "2",
    "cpt.checkpoint_steps": "2",
    "target.min_lang_probability": "0",
    "replay.min_lang_probability": "0",
    "other.min_lang_probability": "0",
    "evaluate.segment_bytes": "120",
    "evaluate.context_bytes": "120",
    "evaluate.bootstrap_samples": "500",
}


def texts(folder: Path) -> dict[str, str]:
    """Three corpora in made-up languages."""
    return {
        "target_text": str(tiny_corpus(folder / "a", "hu", 300)),
        "source_text": str(tiny_corpus(folder / "b", "en", 300, seed=1)),
        "other_text": str(tiny_corpus(folder / "c", "en", 40, seed=2)),
    }


def command(run: Path, model: Path, values: dict[str, str], *flags: str) -> list[str]:
    """The command line of one run."""
    settings = {"model": str(model), **SMALL, **values}
    pairs = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    return [sys.executable, "-m", "langadapt", "run", str(RECIPE), "--out", str(run), *pairs, *flags]


def go(run: Path, model: Path, values: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run it to the end."""
    return subprocess.run(command(run, model, values, *flags), capture_output=True, text=True, timeout=170)


def manifests(run: Path) -> dict[str, bytes]:
    """The manifest of every step of a run: equal manifests mean equal files."""
    return {path.name: (path / "artifact.json").read_bytes() for path in (run / "steps").iterdir() if path.is_symlink()}
