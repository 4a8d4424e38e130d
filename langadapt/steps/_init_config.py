"""What the verbs take that make rows for new tokens: a model, a tokenizer, and all that a method may look at."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from langadapt.core.config import AnyInput, CorpusInput, ModelInput, Reads, StepConfig, TokenizerInput
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input

# `train` needs no model: see embed/trained_helper.py.
_HELPER = Reads(("model",), plain=True, resolver="langadapt.model.load:resolve", words=("train",))


class InitConfig(StepConfig):
    """Fields that `init-embeddings` and `compare-embeddings` share."""

    model: ModelInput
    """Base model: a folder, a .gguf file or a hub id."""

    tokenizer: TokenizerInput
    """Tokenizer made by extend-vocab, trim-vocab or train-tokenizer from this model, or any tokenizer folder."""

    corpus: CorpusInput | None = None
    """Text in the new language, for methods that learn from text: a corpus artifact or plain files."""

    vectors: CorpusInput | None = None
    """Word vectors of the new language: .vec, .bin of fastText, or text to train them on; by default `corpus`."""

    base_vectors: CorpusInput | None = None
    """Word vectors of a language that the base model knows, or text in it to train them on."""

    dictionary: AnyInput | None = None
    """Word pairs, `base word<TAB>new word` a line."""

    helper: Annotated[str, _HELPER] | None = None
    """A model that has the new tokenizer: a folder, a .gguf file or a hub id; `train` learns one from `corpus`."""

    parallel: AnyInput | None = None
    """Sentence pairs, `base sentence<TAB>new sentence` a line."""

    counts: AnyInput | None = None
    """Counts of token pairs, `base token<TAB>new token<TAB>count` a line."""

    rows: AnyInput | None = None
    """Rows of new tokens that something else predicted: a safetensors file, see docs/methods/rows.md."""

    source_text: CorpusInput | None = None
    """Text in a language that the base model knows, to score on: for compare-embeddings and `--method auto`."""

    like: ModelInput | None = None
    """A model that init-embeddings made with this tokenizer from a sibling: its row map is applied again."""

    overlap: Literal["bytes", "string", "special"] = "bytes"
    """Tokens of a replaced tokenizer that keep their rows: of the same bytes, of the same string, or special ones."""


def helper_is_learned(given: Mapping[str, Any]) -> bool:
    """Was `--helper train` asked for? ConfigError if it was, without text to learn from."""
    helper = given.get("helper")
    learned = isinstance(helper, Input) and helper.word
    if learned:
        helper_needs_text(given.get("corpus"))
    return learned


def helper_needs_text(corpus: object) -> None:
    """ConfigError if there is none to learn a helper from."""
    if corpus is None:
        raise ConfigError(
            "`--helper train` needs text", where="helper", hint="give text in the new language: `--corpus CORPUS`"
        )
