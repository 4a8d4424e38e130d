"""What `refine-embeddings` takes."""

from typing import Annotated

from pydantic import Field

from langadapt.core.config import CorpusInput, Flag, ModelInput, Reads, Runtime, StepConfig
from langadapt.core.units import Bytes, Count
from langadapt.model.compute import AskedCompute, AskedDevice

_TEACHER = Reads(("model",), True, "langadapt.model.load:resolve", True)
_Average = Annotated[float, Field(ge=0, lt=1)]


class Config(StepConfig):
    """What refine-embeddings takes."""

    model: ModelInput
    """Model made by init-embeddings; its body and old rows stay as they are."""
    corpus: CorpusInput
    """Text in the new language: a corpus artifact or plain files."""
    teacher: Annotated[str, _TEACHER] | None = None
    """The base model, where the tokenizer replaced its own; by default the model itself reads with its old tokens."""
    source: CorpusInput | None = None
    """Text in a language that the model knows, to measure what it loses."""
    layer: Annotated[Annotated[int, Field(ge=1)] | None, Flag()] = None
    """Layer behind which hidden states are compared; by default the last, behind the final norm."""
    snippets: Annotated[Annotated[int, Field(ge=1, le=10_000)], Flag()] = 20
    """Snippets for each new token, where the text has so many; one snippet serves all new tokens that stand in it."""
    snippet_tokens: Annotated[int, Field(ge=2, le=4096)] = 50
    """New tokens in a snippet, about."""
    held_out_snippets: Annotated[int, Field(ge=0)] = 64
    """Snippets of held-out text that the distance is measured on and that are never learned from."""
    next_token: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the next token's cross entropy, from which the head's new rows learn; 0: they do not."""
    still_directions: Annotated[int, Field(ge=0)] = 16
    """Tied models: directions of the last states that rows do not move in, so that the head reads them as before."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each snippet is read."""
    steps: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Optimiser steps, in place of epochs."""
    batch_snippets: Annotated[int, Field(ge=1)] = 16
    """Snippets of one step."""
    micro_batch_snippets: Annotated[int, Field(ge=1)] | None = None
    """Snippets computed at once; by default all of a step."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)], Flag()] = 3e-3
    """Peak learning rate; 5 % of the steps lead up to it, then a cosine to a tenth."""
    betas: tuple[_Average, _Average] = (0.9, 0.95)
    """AdamW's two averages."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm; longer gradients are shortened to it."""
    max_corpus_bytes: Annotated[Bytes, Field(ge=1)] = 16_000_000
    """Text to look for snippets in, at most."""
    set_bytes: Annotated[Bytes, Field(ge=50)] = 15_000
    """Held-out text of each language that bits per byte are measured on, before and after."""
    segment_bytes: Annotated[Bytes, Field(ge=50)] = 300
    """Longest segment of it; segments are what the bootstrap resamples."""
    context_bytes: Bytes = 600
    """Most bytes of preceding text that a segment may see."""
    document_separator: str = "auto"
    """Token before each snippet and text: `auto` takes the one behind which the model scores held-out text best."""
    compute: Annotated[AskedCompute, Flag()] = "auto"
    """Precision of matrix products; auto: bf16 where the processor has units for it. Rows that move are fp32."""
    device: Annotated[AskedDevice, Flag(), Runtime()] = "auto"
    """Where to compute."""
    checkpoint_steps: Annotated[int | None, Runtime(), Field(ge=1)] = None
    """Steps between checkpoints; by default half of the run, at most 250."""
    keep_checkpoints: Annotated[int, Runtime(), Field(ge=1)] = 2
    """Checkpoints to keep."""
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Runtime()] = None
    """CPU threads; the last bits of a result depend on it, so go on with the number that a run began with."""
