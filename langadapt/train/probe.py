"""Bits per byte of the model in training, on the probes that a data artifact carries."""

from pathlib import Path
from typing import Any

from langadapt.core.io import read_json_lines
from langadapt.core.progress import Progress
from langadapt.model.compute import Compute
from langadapt.model.score import ScoredText, bits_per_byte, score_texts


def langs_of(path: Path) -> dict[str, str]:
    """Language of each probe of a `probes.jsonl`, by name; none if there is no such file."""
    return {str(line["name"]): str(line["lang"]) for line in (read_json_lines(path) if path.is_file() else ())}


class Probe:
    """Measures a model while it is trained; calling it gives bits per byte by probe name."""

    def __init__(
        self,
        path: Path,
        model: Any,
        tokenizer: Any,
        *,
        prefix: int,
        compute: Compute,
        progress: Progress,
    ) -> None:
        """`path` is the `probes.jsonl` of the data; `prefix` the id that each text is scored after."""
        self._model, self._tokenizer, self._prefix = model, tokenizer, prefix
        self._compute, self._progress = compute, progress
        self._lines = list(read_json_lines(path)) if path.is_file() else []

    def names_outside(self, langs: set[str]) -> frozenset[str]:
        """Probes in other languages than these."""
        return frozenset(line["name"] for line in self._lines if line["lang"] not in langs)

    def beginnings(self, tokens: int) -> list[list[int]]:
        """Ids of the first passage of each probe after the prefix, at most `tokens` of them."""
        found = {str(line["name"]): str(line["text"]) for line in reversed(self._lines)}
        texts = [[self._prefix, *self._tokenizer(found[name])["input_ids"]] for name in sorted(found)]
        return [ids[:tokens] for ids in texts]

    def __call__(self) -> dict[str, float]:
        found = {}
        for name in sorted({line["name"] for line in self._lines}):
            texts = [ScoredText(line["id"], line["text"], 0) for line in self._lines if line["name"] == name]
            size = sum(len(text.text.encode()) for text in texts)
            task = self._progress.start(f"bits per byte, {name}", total=size, unit="bytes")
            scores = score_texts(
                self._model, self._tokenizer, texts, prefix_id=self._prefix, compute=self._compute, progress=task
            )
            task.finish()
            found[name] = bits_per_byte(scores)
        return found
