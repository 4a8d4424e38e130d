"""Run one verb in a process of its own, as the command line does, with signals as a flag.

`python -m tests.faults.launch VERB OUT CONFIG.json [--kill STAGE N]`: `--kill` ends the process with SIGKILL at the
N-th time a commit reaches STAGE (counted from 1, checkpoints and result alike). The product has no such switch.
"""

import json
import os
import signal
import sys
from pathlib import Path

from langadapt.core import artifact as artifacts
from langadapt.core import verb as verbs
from langadapt.core.errors import LangadaptError
from langadapt.core.interrupt import signals_as_flag
from langadapt.core.progress import Advanced, Event, Note, Progress
from langadapt.core.validate import validate


def show(event: Event) -> None:
    """One line an event, so that a test can wait for a step."""
    if isinstance(event, Note):
        sys.stdout.write(f"{event.level}: {event.text}\n")
    elif isinstance(event, Advanced):
        sys.stdout.write(f"{event.task} {event.done}\n")
    sys.stdout.flush()


def kill_at(stage: str, count: int) -> None:
    """Replace the stage callback by one that kills this process."""
    seen = 0

    def stop(name: str) -> None:
        nonlocal seen
        seen += name == stage
        if name == stage and seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    artifacts.stage = stop


def main(arguments: list[str]) -> int:
    name, place, config = arguments[0], Path(arguments[1]), json.loads(Path(arguments[2]).read_text())
    if len(arguments) > 3:
        kill_at(arguments[4], int(arguments[5]))
    with signals_as_flag():
        try:
            verb = verbs.load(name)
            result = verbs.perform(verb, validate(verb.config, config), place, progress=Progress(show))
        except LangadaptError as error:
            sys.stderr.write(str(error))
            return error.exit_code
    sys.stdout.write(f"state: {result.state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
