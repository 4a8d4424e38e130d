"""Where converted models are kept, and keeping transformers off the terminal."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where converted models are kept: $LANGADAPT_CACHE, else ~/.cache/langadapt."""
    given = os.environ.get("LANGADAPT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "langadapt"


def quiet_transformers() -> None:
    """Keep the progress bars and advice of transformers off the terminal; langadapt reports for itself."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
