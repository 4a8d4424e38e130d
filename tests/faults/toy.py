"""A verb without models, and a launcher that can stop or kill its process at any stage of a commit.

`python -m tests.faults.toy OUT VALUE [--kill STAGE | --pause STAGE]`: writes two files into OUT.
The product has no test switch: this launcher replaces `core.artifact.stage`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

from langadapt.core import artifact as artifacts
from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import StepConfig, TextInput
from langadapt.core.errors import LangadaptError
from langadapt.core.inputs import Inputs
from langadapt.core.io import write_durably
from langadapt.core.types import Estimate
from langadapt.core.verb import Result, Verb, perform

STAGES = ("locked", "opened", "written", "files-durable", "manifest-durable", "renamed", "swept")


class Config(StepConfig):
    """The toy's declaration."""

    text: TextInput | None = None
    """A file to copy."""
    value: int = 1
    """A number to write."""


def run(config: Config, out: Output) -> Artifact:
    counter = out.partial / "runs.txt"
    runs = counter.read_text() if counter.is_file() else ""
    counter.write_text(runs + "x")
    (out.folder / "deep").mkdir()
    write_durably(out.folder / "value.txt", f"{config.value}\n")
    write_durably(out.folder / "deep" / "double.txt", f"{2 * config.value}\n")
    return out.commit({"value": config.value})


def estimate(config: Config, inputs: Inputs) -> Estimate:
    return Estimate(seconds=0.1, facts={"value": config.value})


TOY = Verb("toy", "Write a number", "toy", 1, Config, run, estimate, None, ModuleType("toy"))


def make(place: Path, value: int = 1, **options: bool) -> Result:
    return perform(TOY, Config(value=value), place, **options)


def main(arguments: list[str]) -> int:
    place, value = Path(arguments[0]), int(arguments[1])
    action, at = (arguments[2], arguments[3]) if len(arguments) > 2 else ("", "")

    def stop(name: str) -> None:
        if name == at and action == "--kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == at and action == "--pause":
            sys.stdout.write("paused\n")
            sys.stdout.flush()
            time.sleep(60)

    artifacts.stage = stop
    try:
        result = make(place, value)
    except LangadaptError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    sys.stdout.write(result.state)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
