"""Which graphics card a run fits on, and which settings make it fit: the memory formula, asked again and again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from langadapt.core.types import Portion
from langadapt.train.footprint import Kept, Shape, Work, memory_bytes, shape_of, state_bytes

# Memory of common cards, in GiB.
CARDS = (12, 16, 24, 48, 80)
# Estimates are good to 15 %: what is said to fit should fit.
_MARGIN = 1.15
_RANK = 64
NOTHING = "does not fit"


@dataclass(frozen=True)
class Setup:
    """A way to run; `words` is what has to be given on the command line for it."""

    words: str
    shape: Shape
    work: Work
    kept: Kept

    @property
    def bytes(self) -> int:
        """Peak memory."""
        return memory_bytes(self.shape, self.work, self.kept)


def setups(shape: Shape, work: Work, kept: Kept, *, stored_bytes: int) -> Iterator[Setup]:
    """The run as it was asked for, then others that need less: first what changes no result, then what changes little.

    `stored_bytes` is the size of a number in the files of the model.
    """
    words: list[str] = []
    yield Setup("", shape, work, kept)
    if work.micro_batch_blocks > 1:
        work = replace(work, micro_batch_blocks=1)
        words.append("-o micro_batch_blocks=1")
        yield Setup(" ".join(words), shape, work, kept)
    if not kept.recompute:
        kept = replace(kept, recompute=True)
        words.append("--gradient-checkpointing on")
        yield Setup(" ".join(words), shape, work, kept)
    before = list(words)
    if not shape.rank and kept.moments == "fp32":
        kept = replace(kept, moments="8bit")
        words.append("--moments 8bit")
        yield Setup(" ".join(words), shape, work, kept)
    if not shape.rank and kept.weights == "fp32" and work.compute == "bf16":
        kept = replace(kept, weights="bf16")
        words.append("--weights bf16")
        yield Setup(" ".join(words), shape, work, kept)
    plain = replace(kept, moments="fp32", weights="fp32", stored_bytes=stored_bytes)
    same = {"parameters": shape.parameters, "rows": shape.rows, "hidden": shape.hidden, "layers": shape.layers}
    same["table_width"] = shape.table_width or shape.hidden
    if not shape.rank and shape.body_moves:
        with_tables = shape_of(**same, tied=shape.tied, moves="tables", rank=_RANK)
        yield Setup(" ".join(["--strategy lora", *before]), with_tables, work, plain)
    if shape.tables_move and (shape.rank or shape.body_moves):
        alone = shape_of(**same, tied=shape.tied, moves="none", rank=shape.rank or _RANK)
        options = ["--strategy lora"] * (not shape.rank) + ["-o strategy_options.train_tables=false"]
        yield Setup(" ".join([*options, *before]), alone, work, plain)


def first_that_fits(shape: Shape, work: Work, kept: Kept, free_bytes: float, *, stored_bytes: int) -> Setup | None:
    """The first of `setups` whose peak, with a margin, is within `free_bytes`."""
    found = setups(shape, work, kept, stored_bytes=stored_bytes)
    return next((each for each in found if each.bytes * _MARGIN <= free_bytes), None)


def card_rows(shape: Shape, work: Work, kept: Kept, *, stored_bytes: int) -> list[tuple[str, str]]:
    """For each card what it takes, `yes` where the run fits as it is; cards that take the same share a row."""
    said: dict[str, list[int]] = {}
    for card in CARDS:
        setup = first_that_fits(shape, work, kept, card * 2**30, stored_bytes=stored_bytes)
        words = NOTHING if setup is None else f"with {setup.words}" if setup.words else "yes"
        said.setdefault(words, []).append(card)
    return [(f"fits {', '.join(map(str, cards))} GB", words) for words, cards in said.items()]


# Shapes of open models by size: name, parameters, rows, hidden, layers, tied.
REFERENCE: tuple[tuple[str, int, int, int, int, bool], ...] = (
    ("0.5B (Qwen2.5)", 494_032_768, 151_936, 896, 24, True),
    ("1B (Llama 3.2)", 1_235_814_400, 128_256, 2048, 16, True),
    ("1.5B (Qwen2.5)", 1_543_714_304, 151_936, 1536, 28, True),
    ("3B (Llama 3.2)", 3_212_749_824, 128_256, 3072, 28, True),
    ("8B (Llama 3.1)", 8_030_261_248, 128_256, 4096, 32, False),
)
REFERENCE_WORK = Work(block_tokens=512, batch_blocks=512, micro_batch_blocks=16, compute="bf16")


def reference_table() -> list[list[str]]:
    """Cells of the table in docs/memory.md: models of 2-byte files, 8,192 tokens at once unless something is said."""
    lines = [["model", "as it stands", *(f"{card} GB" for card in CARDS)]]
    for name, parameters, rows, hidden, layers, tied in REFERENCE:
        shape = shape_of(parameters=parameters, rows=rows, hidden=hidden, layers=layers, tied=tied, moves="full")
        cells = []
        for card in CARDS:
            setup = first_that_fits(shape, REFERENCE_WORK, Kept(), card * 2**30, stored_bytes=2)
            cells.append("-" if setup is None else f"{_short(setup.words)} ({setup.bytes / 2**30:.0f})")
        lines.append([name, f"{memory_bytes(shape, REFERENCE_WORK) / 2**30:.0f}", *cells])
    return lines


# For the page about strategies, as REFERENCE.
MODELS: dict[str, tuple[int, int, int, int, bool]] = {
    "1B (Llama 3.2)": (1_235_814_400, 128_256, 2048, 16, True),
    "7B (Qwen2.5)": (7_615_616_512, 152_064, 3584, 28, False),
    "70B (Llama 3.1)": (70_553_706_496, 128_256, 8192, 80, False),
}
_LARGE_CARDS = (24, 80)


def strategy_table(model: str, portions: Mapping[str, Portion | None]) -> list[list[str]]:
    """Cells of a table in docs/which-strategy.md: what each strategy takes, and what makes it fit as the same one."""
    parameters, rows, hidden, layers, tied = MODELS[model]
    sizes = {"parameters": parameters, "rows": rows, "hidden": hidden, "layers": layers}
    lines = [["strategy", "numbers that move", "state", "peak", *(f"{card} GB" for card in _LARGE_CARDS)]]
    for name, portion in portions.items():
        shape = shape_of(**sizes, tied=tied, moves=portion or Portion(1.0, 1.0))
        kept = Kept(stored_bytes=2 if shape.body_part < 1.0 else 4)
        ways = [each for each in setups(shape, REFERENCE_WORK, kept, stored_bytes=2) if "strategy" not in each.words]
        cells = []
        for card in _LARGE_CARDS:
            setup = next((each for each in ways if each.bytes * _MARGIN <= card * 2**30), None)
            cells.append("-" if setup is None else f"{_short(setup.words)} ({setup.bytes / 2**30:.0f})")
        peak = memory_bytes(shape, REFERENCE_WORK, kept)
        lines.append([f"`{name}`", _millions(shape.trained), _gib(state_bytes(shape, kept)), _gib(peak), *cells])
    return lines


def _millions(count: float) -> str:
    return f"{count / 1e6:,.0f} M"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}" if size < 10 * 2**30 else f"{size / 2**30:,.0f}"


_SHORT = {
    "-o micro_batch_blocks=1": "one", "--gradient-checkpointing on": "recompute", "--moments 8bit": "8bit",
    "--weights bf16": "bf16", "--strategy lora": "lora", "-o strategy_options.train_tables=false": "no tables",
}  # fmt: skip


def _short(words: str) -> str:
    for long, short in _SHORT.items():
        words = words.replace(long, f"{short},")
    return words.rstrip(",") or "yes"
