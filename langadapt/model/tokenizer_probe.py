"""Run as a file of its own, in a process of its own: load a tokenizer.json and cut the texts that stdin holds.

It imports nothing of langadapt, so that it starts in 0.1 s. Exit code 0: it loads and works.
"""

import json
import resource
import sys
from contextlib import suppress

from tokenizers import Tokenizer


def limit(kind: int, most: int) -> None:
    """Lower one limit of this process; systems that do not know it go without."""
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, most))


def main(path: str, seconds: int, memory: int) -> None:
    """Load, encode and decode; whatever is wrong ends this process, by an exception or by a signal."""
    limit(resource.RLIMIT_CORE, 0)
    # the parent counts time as well; this one holds when the parent was killed
    limit(resource.RLIMIT_CPU, seconds)
    limit(resource.RLIMIT_AS, memory)
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in json.loads(sys.stdin.read()):
        for special in (False, True):
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=special).ids, skip_special_tokens=special)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
