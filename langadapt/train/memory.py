"""Out of memory as an error that says what to do, on CPU and GPU alike."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from langadapt.core.errors import ResourceError

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


@contextmanager
def out_of_memory_explained(tokens_at_once: int) -> Iterator[None]:
    """Turn an allocation failure inside the block into a ResourceError (exit 5); never retry with less by itself."""
    try:
        yield
    except MemoryError as error:
        raise _explained(tokens_at_once) from error
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises a plain one
        if isinstance(error, torch.OutOfMemoryError) or any(sign in str(error).lower() for sign in _SIGNS):
            raise _explained(tokens_at_once) from error
        raise


def _explained(tokens_at_once: int) -> ResourceError:
    return ResourceError(
        f"out of memory with {tokens_at_once:,} tokens at once",
        hint="lower `-o micro_batch_blocks`, give `--gradient-checkpointing on`, use shorter blocks "
        "(`mix --block-tokens`), or `--strategy embeddings`; `--dry-run` shows what each needs",
    )
