"""Out of memory as an error that says what to do, on CPU and GPU alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from langadapt.core.boundary import is_out_of_memory
from langadapt.core.errors import ResourceError


@contextmanager
def out_of_memory_explained(tokens_at_once: int, hint: str) -> Iterator[None]:
    """Turn an allocation failure inside the block into a ResourceError (exit 5); never retry with less by itself."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if is_out_of_memory(error):
            raise ResourceError(f"out of memory with {tokens_at_once:,} tokens at once", hint=hint) from error
        raise
