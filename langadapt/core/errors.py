"""What can go wrong, each kind with the exit code that a shell script sees."""

from typing import ClassVar


class LangadaptError(Exception):
    """Something failed in the world; `where` is file:line:key, `hint` is a command or an edit that helps."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = self.message if self.where is None else f"{self.message}  ({self.where})"
        return text if self.hint is None else f"{text}\n\nhint: {self.hint}"


class TrainingFailed(LangadaptError):
    """Training went wrong: a number is not finite, the loss went wild, or the model forgets too much."""


class ConfigError(LangadaptError):
    """A flag, a key or a recipe that cannot be used."""

    exit_code = 2


class DataError(LangadaptError):
    """Input that is corrupt, empty or does not fit together."""

    exit_code = 3


class OutputError(LangadaptError):
    """The output exists with other content, cannot be written, or another process holds it."""

    exit_code = 4


class ResourceError(LangadaptError):
    """Memory, disk or a device is missing."""

    exit_code = 5


class SafetyError(LangadaptError):
    """Refused because going on could run or overwrite something that was not asked for."""

    exit_code = 6


class Interrupted(LangadaptError):
    """Stopped by a signal after everything worth keeping was saved; running the same command again continues."""

    exit_code = 75
