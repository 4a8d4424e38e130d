"""Files of expected values; `UPDATE_GOLDEN=1 pytest tests/golden` writes them anew (say so in the change log)."""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def expected(name: str, found: Any) -> Any:
    """The stored value of `name`; with UPDATE_GOLDEN set, `found` is stored first."""
    path = FOLDER / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))
