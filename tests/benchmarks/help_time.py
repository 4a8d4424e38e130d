"""How long `langadapt --help` takes, beside bare Python and importing torch: python -m tests.benchmarks.help_time."""

import statistics
import subprocess
import sys
import time

CASES = {
    "python": ["-c", ""],
    "langadapt --help": ["-m", "langadapt", "--help"],
    "langadapt cpt --help": ["-m", "langadapt", "cpt", "--help"],
    "import torch": ["-c", "import torch"],
}
ROUNDS = 5
PROMISED_SECONDS = 0.3


def seconds(arguments: list[str]) -> float:
    """Median wall time of a few runs."""
    seen = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seen.append(time.perf_counter() - began)
    return statistics.median(seen)


def main() -> None:
    """Print one line a case."""
    found = {name: seconds(arguments) for name, arguments in CASES.items()}
    for name, value in found.items():
        print(f"{name:22} {value:6.3f} s  {value / found['python']:5.1f}x bare python")
    print(f"promise: langadapt --help under {PROMISED_SECONDS} s")


if __name__ == "__main__":
    main()
