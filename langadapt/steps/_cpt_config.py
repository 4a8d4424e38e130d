"""What `cpt` takes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from langadapt.core.config import DataInput, Flag, ModelInput, OptionsOf, Reads, Runtime, StepConfig
from langadapt.core.languages import Lang
from langadapt.core.units import Count
from langadapt.model.compute import AskedCompute, AskedDevice
from langadapt.train.stages import StageOptions

_Average = Annotated[float, Field(ge=0, lt=1)]
_Factor = Annotated[float, Field(gt=0)]


class Config(StepConfig):
    """What cpt takes."""

    model: ModelInput
    """Model to train: a folder, a .gguf file or a hub id."""
    data: DataInput
    """Data artifact made by mix with the tokenizer of this model."""
    lang: Annotated[Lang | None, Flag()] = None
    """Language that is being learnt; by default that of the targets. Probes in other languages are guarded."""
    strategy: Annotated[str, Flag()] = "full"
    """Which weights may move; see `langadapt list methods`."""
    strategy_options: Annotated[dict[str, Any], OptionsOf("select", "strategy")] = Field(default_factory=dict)
    """Options of the strategy, e.g. `strategy_options.rank=16` for lora; docs/methods/ has a page for each."""
    source: Annotated[Lang | None, Flag()] = None
    """Language that a strategy like ssu shields; by default that of the replayed text."""
    statistics: Annotated[str, Reads(("statistics",), flag_only=True)] | None = None
    """Activations measured by calibrate; without it a strategy that needs them measures them on the data."""
    calibration_tokens: Annotated[Count, Field(ge=1000)] | None = None
    """Tokens of each language to measure them on; by default as many as are trained on, 100,000 to a million."""
    selection: Annotated[str, Reads(("selection",), flag_only=True)] | None = None
    """What may move, chosen by select for this model; in place of a strategy."""
    tokens: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Tokens to train on; by default the target text is read once."""
    steps: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Optimiser steps; by default tokens / batch_tokens."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """Most times that the target text may be read; above 16 is an error."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, Flag()] = None
    """Peak learning rate; by default 3e-4 at 135M parameters, 1e-4 at 1B, 5e-5 at 7B; 2e-4 with an adapter."""
    lr_probe: Annotated[bool, Flag()] = False
    """Try several learning rates for some steps each, pick one, and train with that."""
    lr_probe_factors: Annotated[tuple[_Factor, ...], Field(min_length=1)] = (0.3, 1.0, 3.0)
    """Rates that --lr-probe tries, as multiples of the learning rate."""
    lr_probe_steps: Annotated[int, Field(ge=1)] = 50
    """Steps of each of these short runs, at most those of the run."""
    new_rows_factor: Annotated[float, Field(gt=0)] = 5.0
    """Learning rate of the rows of new tokens, as a multiple of the others'."""
    tables_factor: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of input table and head, as a multiple of the body's; by default what suits the strategy."""
    batch_tokens: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of one optimiser step; by default derived from the budget, 1,024 to 262,144."""
    micro_batch_blocks: Annotated[int, Field(ge=1)] | None = None
    """Blocks computed at once; by default what makes 1,024 tokens on a CPU and 8,192 on a GPU."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps until the learning rate is at its peak; by default 5 % of all."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the peak learning rate that is left at the last step."""
    schedule: Annotated[Literal["cosine", "linear", "constant", "wsd"], Flag()] = "cosine"
    """Course of the learning rate; wsd stays at the peak and falls at the end, so that it can be branched."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all steps in which a wsd run falls."""
    keep_branch: Annotated[bool, Flag()] = False
    """Keep weights and moments as they are before the decay, for --branch-from; 12 bytes a moving parameter."""
    branch_from: Annotated[str, Reads(("model", "checkpoint"), flag_only=True)] | None = None
    """Go on from the state that another run kept, or from a checkpoint; steps count from its beginning."""
    skip_positions: tuple[str, ...] = ()
    """Places of the stream to leave out, `first:last` with the last one excluded; an incident names them."""
    stages: tuple[StageOptions, ...] = ()
    """Parts of the run in which different weights move: share, strategy and its options, rate factor, warm-up."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """What to do when loss or gradient are not finite: stop, or leave the step out and say so in the ledger."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """AdamW decay of matrices, by default 0.1, and 0 for an adapter; norms, biases and tables have none."""
    betas: tuple[_Average, _Average] = (0.9, 0.95)
    """AdamW's two averages."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm; longer gradients are shortened to it."""
    ema: Annotated[_Average, Flag()] = 0.0
    """Weight of the past in a moving average of what moves, such as 0.92; 0: none is kept."""
    ema_every: Annotated[Count, Field(ge=1)] = 1
    """Steps from one update of the average to the next."""
    ema_mode: Literal["export", "live"] = "export"
    """What the average is for: export writes it in place of the weights, live makes it the weights at each update."""
    compute: Annotated[AskedCompute, Flag()] = "auto"
    """Precision of matrix products; auto: bf16 where the processor has units for it. Weights that move are fp32."""
    weights: Annotated[Literal["fp32", "bf16"], Flag()] = "fp32"
    """Weights while they move; bf16 halves them and rounds stochastically (needs langadapt[lowbit])."""
    moments: Annotated[Literal["fp32", "8bit", "4bit"], Flag()] = "fp32"
    """AdamW's two averages in memory: 8, 2 or 1 bytes a parameter (below fp32 needs langadapt[lowbit])."""
    compile: Annotated[bool, Flag()] = False
    """Compile the layers with torch.compile; needs a C++ compiler, pays off after some hundred steps."""
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], Flag(), Runtime()] = "auto"
    """Compute activations again instead of keeping them; auto: when memory would not do. Same result."""
    probe_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements of bits per byte; by default a third of the run."""
    max_forgetting: Annotated[float, Flag(), Runtime(), Field(ge=0)] = 0.10
    """Stop when a probe in another language than the target's is worse by more than this share."""
    icl_probe: Annotated[bool, Flag()] = False
    """Ask questions that are answered from examples in the prompt at every probe, and warn when answers get worse."""
    max_icl_loss: Annotated[float | None, Runtime(), Field(ge=0)] = None
    """Stop when a question of --icl-probe costs so many bits more than at the start; without it never."""
    device: Annotated[AskedDevice, Flag(), Runtime()] = "auto"
    """Where to compute."""
    deterministic: Annotated[bool, Runtime()] = True
    """On a GPU use only kernels that give the same bits each time; false: faster, and no two runs are alike."""
    checkpoint_steps: Annotated[int | None, Runtime(), Field(ge=1)] = None
    """Steps between checkpoints; by default half of the run, at most 250."""
    keep_checkpoints: Annotated[int, Runtime(), Field(ge=1)] = 2
    """Checkpoints to keep."""
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Runtime()] = None
    """CPU threads; the last bits of a result depend on it, so go on with the number that a run began with."""
