"""Out of memory as an error that says what to do, on CPU and GPU alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from langadapt.core.boundary import is_out_of_memory
from langadapt.core.errors import ResourceError


@contextmanager
def out_of_memory_explained(tokens_at_once: int) -> Iterator[None]:
    """Turn an allocation failure inside the block into a ResourceError (exit 5); never retry with less by itself."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if is_out_of_memory(error):
            raise _explained(tokens_at_once) from error
        raise


def _explained(tokens_at_once: int) -> ResourceError:
    return ResourceError(
        f"out of memory with {tokens_at_once:,} tokens at once",
        hint="lower `-o micro_batch_blocks`, give `--gradient-checkpointing on`, use shorter blocks "
        "(`mix --block-tokens`), or `--strategy embeddings`; `--dry-run` shows what each needs",
    )
