"""The token between documents: given, or the candidate that makes a model score held-out text best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress
from langadapt.mixture.passages import Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# 3 kB in passages of 250 bytes are a dozen document openings; on SmolLM2 candidates differ by 0.1 bits per byte
# there, and the whole choice costs a few seconds.
PASSAGE_BYTES = 250
TOTAL_BYTES = 3000


def given_separator(given: str, tokenizer: "PreTrainedTokenizerBase", known: Mapping[str, int], rows: int) -> int:
    """Id of the token that the user named, by its text or (digits only) by its id; ConfigError if there is none."""
    ids = tokenizer.get_vocab()
    number = int(given) if given.isdigit() else ids.get(given)
    if number is None or number >= rows or number not in ids.values():
        raise ConfigError(
            f"`document_separator`: the model has no token `{given}`", hint=f"candidates: {', '.join(known) or 'none'}"
        )
    return int(number)


def score_separators(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    known: Mapping[str, int],
    texts: Sequence[Passage],
    progress: Progress,
) -> dict[str, float]:
    """Bits per byte of `texts`, each scored behind every candidate of `known`; fp32, four decimals."""
    from langadapt.model.compute import choose_device
    from langadapt.model.load import load_model
    from langadapt.model.score import ScoredText, bits_per_byte, score_texts

    model = load_model(folder).to(choose_device())
    scored = [ScoredText(text.id, text.text) for text in texts]
    task = progress.start(
        "choose separator", total=sum(len(text.text.encode()) for text in texts) * len(known), unit="bytes"
    )
    found = {}
    for token, number in known.items():
        values = score_texts(model, tokenizer, scored, prefix_id=number, compute="fp32", progress=task)
        # rounded, because the last digits depend on the number of threads and the manifest is hashed
        found[token] = round(bits_per_byte(values), 4)
    task.finish()
    if any(value != value for value in found.values()):
        raise DataError(f"`{folder}` gives NaN on ordinary text: its weights are damaged")
    return found
