"""What packing will cost, from sizes and a sample."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from langadapt.core.types import Estimate
from langadapt.mixture.blend import Amount
from langadapt.mixture.separator import TOTAL_BYTES
from langadapt.mixture.shards import token_type
from langadapt.model.tokenizer_check import check_tokenizer

SAMPLE_BYTES = 100_000
# Between a tokenizer made for the language (4 and more) and one that has never seen it (2 and less).
ASSUMED_BYTES_PER_TOKEN = 3.5
_ASSUMED_DOCUMENT_BYTES = 1000.0
# Measured on two cores: reading and hashing a corpus artifact; byte-level BPE.
_READ_BYTES_A_SECOND = 40e6
_TOKENISE_BYTES_A_SECOND = 2e6
# Starting torch and transformers, and what they hold in memory.
_START_SECONDS = 5.0
_START_BYTES = 600_000_000
_LOAD_BYTES_A_SECOND = 500e6
_OPERATIONS_A_SECOND = 50e9
_CANDIDATES = 3


def density(model: Path, texts: Sequence[str]) -> tuple[float, float]:
    """Bytes per token (no separators) and bytes per document of a sample; assumed values for an empty one."""
    from tokenizers import Tokenizer

    size = sum(len(text.encode()) for text in texts)
    if not size:
        return ASSUMED_BYTES_PER_TOKEN, _ASSUMED_DOCUMENT_BYTES
    check_tokenizer(model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokens = sum(len(item.ids) for item in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
    return size / max(tokens, 1), size / len(texts)


def amount(used: int, sample: tuple[float, float], size: int, documents: int | None) -> Amount:
    """What `used` bytes of a corpus of `size` bytes and (if known) `documents` documents become."""
    per_token, per_document = sample
    if documents:
        per_document = size / documents
    kept = max(1, round(used / max(per_document, 1.0)))
    return Amount(kept, max(used, 1), max(2, round(used / per_token) + kept))


def estimate(
    amounts: Mapping[str, Amount],
    read_bytes: int,
    vocabulary: int,
    scored_parameters: int,
    facts: dict[str, object],
    rows: Sequence[tuple[str, str]],
) -> Estimate:
    """Seconds, memory and disk; `scored_parameters` is the size of the model that chooses the separator, or 0."""
    packed = sum(item.bytes for item in amounts.values())
    tokens = sum(item.tokens for item in amounts.values())
    seconds = _START_SECONDS + 2 * read_bytes / _READ_BYTES_A_SECOND + packed / _TOKENISE_BYTES_A_SECOND
    if scored_parameters:
        scored_tokens = _CANDIDATES * TOTAL_BYTES / ASSUMED_BYTES_PER_TOKEN
        seconds += scored_tokens * 2 * scored_parameters / _OPERATIONS_A_SECOND
        seconds += 4 * scored_parameters / _LOAD_BYTES_A_SECOND
    disk = 2 * tokens * token_type(vocabulary).itemsize
    return Estimate(seconds, _START_BYTES + 4 * scored_parameters, disk, facts, tuple(rows))
