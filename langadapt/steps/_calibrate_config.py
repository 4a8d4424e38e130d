"""What `calibrate` takes."""

from typing import Annotated

from pydantic import Field

from langadapt.core.config import CorpusInput, Flag, ModelInput, Reads, Runtime, StepConfig
from langadapt.core.units import Count
from langadapt.model.compute import AskedCompute, AskedDevice


class Config(StepConfig):
    """What calibrate takes."""

    model: ModelInput
    """Model to look at: a folder, a .gguf file or a hub id."""
    corpora: dict[str, CorpusInput]
    """Text by language, LANG=CORPUS each (made by prepare, of which the train part is read; or plain text)."""
    tokens: Annotated[Annotated[Count, Field(ge=16)], Flag()] = 1_000_000
    """Most tokens of text to read in each language; language-specific neurons want about a million."""
    window_tokens: Annotated[Annotated[Count, Field(ge=16)], Flag()] = 512
    """Tokens that the model reads at once; documents are packed."""
    skip_first: Annotated[bool, Flag()] = False
    """Leave out the first token of each document and window as well as special tokens and padding."""
    chat: Annotated[bool, Flag()] = False
    """Put each document into the model's chat template; for models that were tuned on conversations."""
    taylor: Annotated[bool, Flag()] = False
    """Measure what the loss would lose with each neuron too (LANDeRMT); needs a backward pass."""
    document_separator: str = "auto"
    """Token that opens each window and stands between documents; auto: the tokenizer's first, BOS before EOS."""
    add: Annotated[str, Reads(("statistics",), flag_only=True)] | None = None
    """Statistics of this model, measured in the same way, whose languages are kept."""
    compute: Annotated[AskedCompute, Flag()] = "auto"
    """Precision of the weights and of all products; auto: bf16 where the processor has units for it."""
    device: Annotated[AskedDevice, Flag(), Runtime()] = "auto"
    """Where to compute."""
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Runtime()] = None
    """CPU threads; the last bits of a result depend on it, so go on with the number that a run began with."""
