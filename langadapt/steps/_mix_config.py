"""What `mix` takes."""

from typing import Annotated

from pydantic import Field

from langadapt.core.config import CorpusInput, Flag, Later, ModelInput, Reads, StepConfig
from langadapt.core.units import Bytes, Count


class Config(StepConfig):
    """What mix takes."""

    model: ModelInput
    """Model whose tokenizer is used and which chooses the separator: a folder, a .gguf file or a hub id."""
    corpora: dict[str, CorpusInput]
    """Corpora to train on, NAME=FOLDER each (made by prepare, or plain text)."""
    replay: Annotated[dict[str, float], Flag()] = Field(default_factory=dict)
    """Share of the stream's bytes for corpora in languages the model should not forget, e.g. en=0.2."""
    replay_until: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Flag(), Later()] = None
    """Replay in the first part of the stream only: a share of what a run over it is planned to read, e.g. 0.1."""
    replay_after: Annotated[dict[str, float], Later()] = Field(default_factory=dict)
    """Shares of bytes of replayed corpora after that; those that are not named are not read any more."""
    planned_tokens: Annotated[Annotated[Count, Field(ge=1)] | None, Later()] = None
    """Tokens that the run is planned to read; by default until the first target has been read once."""
    probes: dict[str, Annotated[str, Reads(("corpus",), plain=True, flag_only=True)]] = Field(default_factory=dict)
    """Corpora that training only watches, NAME=FOLDER each; the held-out text of the others is watched as well."""
    block_tokens: Annotated[Count, Flag()] = 512
    """Tokens in one training block."""
    document_separator: str = "auto"
    """Token between documents: `auto` takes what scores held-out source text best, else a token or its id."""
    max_bytes: dict[str, Bytes] | Bytes | None = None
    """Most bytes of text to pack per corpus; by default replayed corpora stop where four passes could not use more."""
