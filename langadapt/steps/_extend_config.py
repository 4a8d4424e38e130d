"""What `extend-vocab` takes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.languages import Lang
from langadapt.core.units import Bytes, Count, CountOrAuto


def _in_range(size: Any) -> Any:
    """A size that a vocabulary can have."""
    if size != "auto" and not 1 <= size <= 1_000_000:
        raise ValueError("it must be from 1 to 1,000,000")
    return size


class Config(StepConfig):
    """What extend-vocab takes."""

    model: ModelInput
    """Base model: a folder, a .gguf file or a hub id; only its tokenizer is read."""
    corpus: CorpusInput
    """Text of the target language, made by prepare."""
    guard: tuple[CorpusInput, ...] = ()
    """Text whose tokens must not change: every word in it keeps its exact ids."""
    also: tuple[CorpusInput, ...] = ()
    """Text of further target languages; new tokens are shared out among all."""
    mode: Annotated[Literal["append", "reserved", "same-size"], Flag()] = "append"
    """Where new tokens go: behind all others, into reserved and spare ids, or instead of the least used old tokens."""
    lang: Annotated[Lang | None, Flag()] = None
    """Target language; by default that of the corpus."""
    size: Annotated[CountOrAuto, AfterValidator(_in_range), Flag("-n")] = 4000
    """New tokens; auto: until 1,000 more save under 0.5 %. Fewer if the text has no more that are frequent enough."""
    max_auto_size: Annotated[Count, Field(ge=100, le=1_000_000)] = 32_000
    """New tokens with size `auto`, at most."""
    min_count: Annotated[int, Field(ge=1)] = 10
    """A token that the text ends with less often is left out, unless a kept token is built of it."""
    max_token_bytes: Annotated[int, Field(ge=2, le=256)] = 32
    """Longest new token."""
    split_digits: Literal["auto", "yes", "no"] = "auto"
    """Keep digits apart in new tokens; auto: if the base does."""
    guard_rule: Literal["words", "script"] = "words"
    """script: new tokens also hold a letter of the target's script, so all text without such letters keeps its ids."""
    guard_forms: Literal["worth", "all", "none"] = "worth"
    """Protected words as no text has them (capitalised, lower case, without a space): guard them all, none, or (BPE)
    those that do not cost the target far more than they are worth. Words that text has are always guarded."""
    reserved_pattern: str | None = None
    """Regular expression for more tokens that mode `reserved` may take, such as `<extra_id_[0-9]+>`."""
    temperature: Annotated[float, Field(ge=1, le=100)] = 2.0
    """With several target languages each counts (its bytes) to the power 1/temperature; 1 takes the text as it is."""
    max_corpus_bytes: Annotated[Bytes, Field(ge=1)] = 32_000_000
    """Target text of each language to learn from, at most: more of it changes few tokens."""
    max_guard_bytes: Annotated[Bytes, Field(ge=1)] = 64_000_000
    """Text of each guard corpus to take words from, at most."""
