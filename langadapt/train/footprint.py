"""How much memory training takes: a sum over what is alive when most of it is.

Counts of saved activations are those of a decoder layer with RMS norm, rotary attention and a gated MLP as
transformers computes it; `tests/unit/test_train_footprint.py` counts them on such a layer, and
`tests/benchmarks/cpt_memory.py` measures whole runs.
"""

from dataclasses import dataclass, replace
from typing import Literal

from langadapt.core.types import Portion
from langadapt.model.compute import Compute
from langadapt.train.loss import HEAD_PIECE_NUMBERS, HEAD_PIECES_FROM, PIECE_NUMBERS

Moments = Literal["fp32", "8bit", "4bit"]

# Python, torch, transformers and a tokenizer; what peft, and torchao with torch's compiler, add.
_PROGRAM_BYTES = 450_000_000
_PEFT_BYTES = 100_000_000
# Both averages of one number, scales included (`lowbit`).
MOMENT_BYTES = {"fp32": 8.0, "8bit": 2 * (1 + 4 / 256), "4bit": 2 * (0.5 + 4 / 128)}
# The average of one number (`ema`).
AVERAGE_BYTES = 4.0
# torchao's step as plain operations unpacks a whole tensor into codes of 8 bytes: measured, 52 to 57 bytes a number.
_UNPACKED_BYTES = 57
# fp32 copies of one piece of the logits while loss and gradient are made of it.
_PIECE_COPIES = 4
# Of a table, the share of rows up to which they are trained beside it (`slices`).
SLICED_UP_TO = 0.5
# What moves of less than this of the body is neurons of its MLPs, rows and columns; of more, columns of all matrices.
_NEURONS_UP_TO = 0.2
# Matrices of a decoder layer: query, key, value, back, gate, up, down.
_MATRICES = 7
# glibc fills the holes that a layer's freed intermediates leave only in part. Of the hidden width, bytes a token and
# layer: 14 to 17 were measured; with every tensor in a mapping of its own (MALLOC_MMAP_THRESHOLD_) there were none.
_HOLES = 16
# The same beside an adapter, in numbers of the dtype that it computes in: peft makes each output of a matrix four times
# (the base's, the adapter's, that scaled, the sum), and what is kept of the adapter's rank splits the space of three.
# 14 to 17 were measured with rank 64 and 4 to 8 blocks, 8 with rank 8.
_ADAPTER_HOLES = 14
_FEWEST_ROWS = 128


@dataclass(frozen=True)
class Shape:
    """A model as the formulas see it; `trained` is the number of parameters that move, those of an adapter included.

    `rank` is that of the adapter, 0 without one; `table_width` that of the tables where it is not `hidden`. Where body
    or tables move in part, `body_share` and `tables_share` are the parts; None: whole or not at all, as `trained` says.
    `whole`: the moving part of the body is whole tensors.
    """

    parameters: int
    trained: int
    rows: int
    hidden: int
    layers: int
    tied: bool
    rank: int = 0
    table_width: int | None = None
    body_share: float | None = None
    tables_share: float | None = None
    whole: bool = False

    @property
    def head(self) -> int:
        """Parameters of one table."""
        return self.rows * (self.table_width or self.hidden)

    @property
    def tables(self) -> int:
        """Parameters of input table and head."""
        return self.head * (1 if self.tied else 2)

    @property
    def body(self) -> int:
        """Parameters of everything else."""
        return max(0, self.parameters - self.tables)

    @property
    def layer_width(self) -> int:
        """Summed output width of the matrices of one layer, each seen as [hidden, width]."""
        return max(4, round(self.body / max(self.layers, 1) / self.hidden))

    @property
    def inner(self) -> float:
        """Width of the gated MLP, where keys and values together are two thirds of the hidden width."""
        return max(self.hidden / 3, (self.layer_width - self.hidden * 8 / 3) / 3)

    @property
    def adapter(self) -> int:
        """Parameters of two factors of `rank` beside every matrix of a layer."""
        return self.layers * self.rank * (_MATRICES * self.hidden + self.layer_width)

    @property
    def body_moves(self) -> bool:
        """Does anything besides tables and adapter move?"""
        return self.body_part > 0.0

    @property
    def tables_move(self) -> bool:
        """Do input table and head move, as a whole or all but some rows that are put back?"""
        return self.tables_part > SLICED_UP_TO

    @property
    def body_part(self) -> float:
        """Share of the body that moves."""
        whole = float(self.trained - self.adapter > self.tables * 1.001)
        return whole if self.body_share is None else self.body_share

    @property
    def tables_part(self) -> float:
        """Share of the tables that moves."""
        whole = float(self.trained - self.adapter >= self.tables * 0.999)
        return whole if self.tables_share is None else self.tables_share

    @property
    def sliced(self) -> bool:
        """Are matrices of the body frozen, and parts of them trained beside them?"""
        return 0.0 < self.body_part < 1.0 and not self.whole

    @property
    def beside(self) -> float:
        """Numbers that are trained beside the frozen tensor that they are a part of."""
        tables = 0.0 if self.tables_move else self.tables_part * self.tables
        return tables + (self.body_part * self.body if self.sliced else 0.0)


@dataclass(frozen=True)
class Work:
    """How much is done at once and in a step."""

    block_tokens: int
    batch_blocks: int
    micro_batch_blocks: int
    compute: Compute

    @property
    def micro_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.block_tokens * min(self.micro_batch_blocks, self.batch_blocks)

    @property
    def accumulates(self) -> bool:
        """Are gradients of one micro-batch there while the next is computed?"""
        return self.micro_batch_blocks < self.batch_blocks


@dataclass(frozen=True)
class Kept:
    """How numbers are kept. `stored_bytes` are those of a number of a frozen matrix beside an adapter.

    `averaged`: a moving average of what moves is kept too.
    """

    moments: Moments = "fp32"
    weights: Compute = "fp32"
    recompute: bool = False
    stored_bytes: int = 4
    on_cpu: bool = False
    compiled: bool = False
    averaged: bool = False

    @property
    def beside_bytes(self) -> float:
        """Of a number that moves: its two moments, and its average."""
        return MOMENT_BYTES[self.moments] + (AVERAGE_BYTES if self.averaged else 0.0)

    @property
    def eager(self) -> bool:
        """Do plain operations on a CPU do the work?"""
        return self.on_cpu and not self.compiled


USUAL = Kept()


def activation_bytes(shape: Shape, work: Work) -> float:
    """Saved for the backward pass, a token and layer.

    In fp32 words: two inputs of norms and two normed ones; inputs of query/key/value, of the back projection and of
    gate/up; query, key and value for attention (keys and values repeated to the hidden width), its result being the
    input of the back projection; gate, its SiLU, up, their product. Autocast keeps a 2-byte copy of an input for each
    matrix that reads it. A frozen matrix keeps no input, a frozen norm no normed value; one whose columns move in part
    keeps those of its input, where that is less than the whole, which others share. The mask has a row a token.
    """
    width, inner, bf16 = shape.hidden, shape.inner, work.compute == "bf16"
    size, mask = (2, 2 * work.block_tokens) if bf16 else (4, 4 * work.block_tokens)
    if shape.body_moves and not shape.sliced:
        return (34 * width + 8 * inner if bf16 else 40 * width + 16 * inner) + mask
    frozen = 8 * width + size * (4 * width + 3 * inner) + mask
    if shape.sliced:
        part = shape.body_part
        read = 6 * part if bf16 else min(1.0, 3 * part) + min(1.0, 2 * part) + part
        # rows of gate and up need all of what these read
        read += (2 if bf16 else 1) * (part < _NEURONS_UP_TO)
        return frozen + 8 * width + size * (read * width + part * inner)
    if not shape.rank:
        return frozen
    inputs = 6 * width if bf16 else 2 * width
    return frozen + size * (inputs + inner + _MATRICES * shape.rank)


def hole_bytes(shape: Shape, tokens: int, compute: Compute) -> int:
    """What the heap holds unused behind the activations of so many tokens, where plain operations run on a CPU."""
    holes = _ADAPTER_HOLES * (2 if compute == "bf16" else 4) if shape.rank else _HOLES
    return tokens * shape.layers * holes * shape.hidden


def head_bytes(shape: Shape, work: Work, kept: Kept = USUAL) -> float:
    """The head's product, loss and gradient at their largest: whole logits, or one piece of them."""
    size = 2 if work.compute == "bf16" else 4
    narrow = not shape.tables_move and kept.stored_bytes == 2
    copy = 2 * shape.head if size == 2 and kept.weights == "fp32" and not narrow else 0
    numbers = work.micro_tokens * shape.rows
    scratch = _PIECE_COPIES * 4 * min(numbers, PIECE_NUMBERS)
    gradient = 4 * round(shape.head * (1.0 if shape.tables_move else shape.tables_part))
    if numbers > HEAD_PIECES_FROM:
        rows = min(work.micro_tokens, max(_FEWEST_ROWS, HEAD_PIECE_NUMBERS // shape.rows))
        return copy + rows * shape.rows * size + max(scratch, gradient)
    # the product's own gradient comes in its dtype and is then widened
    return copy + 2 * numbers * size + max(scratch, gradient + (size * shape.head if gradient and size == 2 else 0))


def memory_bytes(shape: Shape, work: Work, kept: Kept = USUAL) -> int:
    """Peak memory of the training process: resident on a CPU, allocated on a GPU (with the program's own part).

    Weights and moments are always there. The peak is at the end of a forward pass (activations, bf16 copies of
    matrices, the head's gradient, and all gradients if others were before), at the end of a backward pass (all
    gradients; a tied table has two until they are added), or in the step of low-bit moments as plain operations.
    """
    number = 2 if kept.weights == "bf16" else 4
    frozen_number = kept.stored_bytes if work.compute == "bf16" and number == 4 else number
    frozen = shape.body * (1.0 if shape.sliced else 1.0 - shape.body_part)
    # an untied input table is looked up as it is; as a head it is a matrix like others
    frozen_tables = 0 if shape.tables_move else shape.head
    weights = number * (shape.parameters - frozen - frozen_tables) + frozen_number * (frozen + frozen_tables)
    weights += number * shape.beside + 4 * shape.adapter
    moments = kept.beside_bytes * shape.trained
    gradients = number * shape.trained

    cast = work.compute == "bf16" and kept.weights == "fp32"
    # casts of what autograd keeps for the backward pass: of matrices that move in part it keeps the matrix itself
    still = 0.0 if frozen_number == 2 or (shape.body_part >= _NEURONS_UP_TO and shape.sliced) else 2 * frozen
    if shape.sliced:  # attention alone, as far as a gated MLP leaves it
        still *= max(0.0, 1.0 - 3 * shape.inner / shape.layer_width)
    moving = 0.0 if shape.sliced else 2 * (shape.body - frozen)
    copies = (2 * shape.adapter + still + moving) if cast else 0.0
    a_layer = work.micro_tokens * activation_bytes(shape, work)
    activations = shape.layers * a_layer
    if kept.recompute:
        # inputs of all layers; a frozen matrix is cast again each time, one that moves stays cast in the forward pass
        activations = work.micro_tokens * shape.layers * 4 * shape.hidden + a_layer
        copies -= (still + 2 * shape.adapter) * (1 - 1 / max(1, shape.layers)) if cast and not moving else 0.0
    holes = hole_bytes(shape, work.micro_tokens, work.compute) if kept.eager else 0
    forward = activations + holes + copies + head_bytes(shape, work, kept) + (gradients if work.accumulates else 0)
    second = number * shape.head * (1 + work.accumulates) if shape.tied and shape.tables_move else 0.0
    backward = gradients + second + a_layer
    # what the heap took for activations is not given back before the step
    unpacked = _UNPACKED_BYTES * shape.head if kept.eager and kept.moments != "fp32" else 0
    step = gradients + activations + holes + unpacked if unpacked else 0
    program = _PROGRAM_BYTES + (_PEFT_BYTES if shape.rank else 0)
    return round(program + weights + moments + max(forward, backward, step))


def state_bytes(shape: Shape, kept: Kept = USUAL) -> int:
    """Gradients, moments and trained copies of all that moves: 16 bytes a number in fp32, 8 in bf16 with 8-bit moments.

    A tensor that moves in part is there beside that, frozen; one that moves as a whole is its own copy.
    """
    number = 2 if kept.weights == "bf16" else 4
    return round(shape.trained * (2 * number + kept.beside_bytes))


def shape_of(
    *, parameters: int, rows: int, hidden: int, layers: int, tied: bool,
    moves: Literal["full", "tables", "none"] | Portion,
    rank: int = 0, table_width: int | None = None,
) -> Shape:  # fmt: skip
    """A shape from what moves of the model, and an adapter of `rank`."""
    plain = Shape(parameters, 0, rows, hidden, layers, tied, rank, table_width)
    if isinstance(moves, Portion):
        plain = replace(plain, body_share=moves.body, tables_share=moves.tables, whole=moves.whole, rank=moves.rank)
        tables = 1.0 if plain.tables_move else moves.tables
        return replace(plain, trained=round(plain.body * moves.body + plain.tables * tables) + plain.adapter)
    own = {"full": parameters, "tables": plain.tables, "none": 0}[moves]
    return replace(plain, trained=own + plain.adapter)
