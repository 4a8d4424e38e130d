"""Where libraries read files from outside: whatever they raise there is an error about the file, not one of ours."""

from types import TracebackType

from langadapt.core.errors import DataError, LangadaptError, ResourceError

# The class that Rust code raises through pyo3 when it gives up. It is no `Exception`, and it is exported nowhere.
_PANIC = "PanicException"
# torch's allocator of the CPU raises a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


class Reading:
    """Turns what a library raises while it reads `what` into a DataError.

    The tokenizers library raises bare `Exception` and panics, transformers whatever a wrong type in a settings file
    leads to (TypeError, AttributeError, IndexError): no list of classes would be whole.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, LangadaptError | MemoryError):
            return
        if is_out_of_memory(error):
            raise ResourceError(
                f"out of memory: {self._what}", hint="a model of this size needs a machine with more memory"
            ) from error
        if isinstance(error, Exception) or is_panic(error):
            raise DataError(f"{self._what}: {first_line(error)}") from error


class Panics:
    """Turns a panic of a native library into a DataError: some rule of a file does not work on some text."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and is_panic(error):
            raise DataError(
                f"a library gave up on this input: {first_line(error)}",
                hint="the tokenizer asks for something that it cannot do; save it again with transformers",
            ) from error


def is_panic(error: BaseException) -> bool:
    """Is this a panic of Rust code?"""
    return type(error).__name__ == _PANIC


def is_out_of_memory(error: BaseException) -> bool:
    """Did Python or torch, on CPU or GPU, find too little memory?"""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The message of an error as one line, or its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
