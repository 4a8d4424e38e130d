"""Models go on with a text, side by side. A plain function and no verb: what they write is looked at, and not kept."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from langadapt.core.artifact import is_artifact, open_artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 40
TEMPERATURE = 0.8
TOP_P = 0.95


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How models write: at most `tokens` new tokens, the most probable one each time or (`sample`) by chance.

    `temperature`, `top_p` and `seed` are for chance only. `repetition_penalty` divides the positive logits of what was
    written already, and multiplies the negative ones; None is that of `evaluate`, and 1 with `sample`. With `chat` the
    text is what a user says, in the model's own chat template.
    """

    tokens: int = TOKENS
    sample: bool = False
    temperature: float = TEMPERATURE
    top_p: float = TOP_P
    seed: int = 0
    repetition_penalty: float | None = None
    chat: bool = False

    def check(self) -> None:
        """ConfigError for a number that means nothing."""
        if self.tokens < 1:
            raise ConfigError("`tokens` must be at least 1")
        if not 0 < self.temperature < math.inf:
            raise ConfigError("`temperature` must be above 0", hint="0 would be the most probable token: --greedy")
        if not 0 < self.top_p <= 1:
            raise ConfigError("`top_p` must be above 0 and at most 1")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < math.inf:
            raise ConfigError("`repetition_penalty` must be above 0", hint="1 is none")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one model wrote after one prompt.

    `tokens_per_word` is of the prompt under the model's tokenizer, None for a script without spaces. `ended`: by the
    model itself, or because all `tokens` were written. `begins_with` is the token before the prompt, if any.
    """

    model: str
    prompt: str
    text: str
    tokens: int
    prompt_tokens: int
    tokens_per_word: float | None
    seconds: float
    ended: Literal["model", "tokens"]
    begins_with: str | None


def try_models(
    models: Sequence[str | Path],
    prompts: str | Sequence[str],
    manner: Manner | None = None,
    *,
    progress: Progress | None = None,
) -> list[Reply]:
    """Replies in the order of prompts, and of models within a prompt; one model is in memory at a time.

    A model is a folder, a .gguf file or a hub id. ConfigError for an empty prompt, DataError for a model that is not
    there or cannot take the prompt.
    """
    from langadapt.model.load import resolve

    manner, progress = manner or Manner(), progress or Progress()
    manner.check()
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ConfigError("an empty prompt", hint="give the beginning of a text in quotes, or `-` to read prompts")
    if not models:
        raise ConfigError("no model to try", hint="name at least one")
    if not all(str(model).strip() for model in models):
        raise ConfigError("the name of a model is empty", hint="is a variable of the shell not set?")
    folders = {}
    for model in models:
        # all of them first: a wrong name should not cost the time of the models before it
        folders[str(model)] = resolve(str(model), progress)
        if not folders[str(model)].exists():
            raise DataError(f"`{model}` does not exist", hint="a model is a folder, a .gguf file or a hub id")
    written = {name: _write(name, folder, prompts, manner, progress) for name, folder in folders.items()}
    return [written[str(model)][number] for number in range(len(prompts)) for model in models]


def _write(name: str, folder: Path, prompts: Sequence[str], manner: Manner, progress: Progress) -> list[Reply]:
    from langadapt.model.compute import choose_device
    from langadapt.model.facts import check_positions
    from langadapt.model.load import load_model, load_tokenizer

    facts = open_artifact(folder, "model").facts if is_artifact(folder) else {}
    tokenizer = load_tokenizer(folder)
    given = []
    for prompt in prompts:
        ids = _chat_ids(tokenizer, prompt, name) if manner.chat else _plain_ids(tokenizer, prompt, facts, name)
        hint = "give a shorter prompt, or fewer --tokens: together at most {}"
        check_positions(folder, len(ids) + manner.tokens, "prompt and continuation take", hint)
        given.append(ids)
    bar = progress.start(name, total=manner.tokens * len(prompts), unit="tokens")
    bar.advance(0)
    model = load_model(folder).to(choose_device())
    replies = []
    for prompt, ids in zip(prompts, given, strict=True):
        replies.append(_reply(name, model, tokenizer, prompt, ids, manner, bar))
    bar.finish()
    return replies


def _plain_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str, facts: dict[str, object], name: str) -> list[int]:
    """The token that begins a document, and the prompt, in which special tokens are plain text.

    That token is the one that `cpt` trained with, else the tokenizer's BOS, else there is none.
    """
    from langadapt.model.spans import spans

    trained = facts.get("document_separator")
    first = trained if isinstance(trained, int) else tokenizer.bos_token_id
    ids = list(spans(tokenizer, prompt).ids)
    if not ids:
        raise DataError(f"the tokenizer of `{name}` leaves nothing of the prompt")
    return ids if first is None else [int(first), *ids]


def _chat_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str, name: str) -> list[int]:
    """The prompt as a user's turn in the model's chat template, up to where the model speaks."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise DataError(f"`{name}` has no chat template", hint="leave out --chat: the model then goes on with the text")
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"the chat template of `{name}` fails: {error}") from error
    return [int(item) for item in tokenizer(str(text), add_special_tokens=False)["input_ids"]]


def _stops(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens with which the model ends a text or a turn."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    found = declared if isinstance(declared, list | tuple) else [declared]
    return sorted({int(item) for item in (*found, tokenizer.eos_token_id) if item is not None})


def _reply(
    name: str,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    ids: Sequence[int],
    manner: Manner,
    bar: Task,
) -> Reply:
    from langadapt.core.rng import stream
    from langadapt.evaluate.continuations import REPETITION_PENALTY, most_probable, whole_characters, write
    from langadapt.evaluate.sampling import Nucleus
    from langadapt.model.spans import PieceReader
    from langadapt.vocab.metrics import tokens_per_word

    began = time.monotonic()
    penalty = manner.repetition_penalty or (1.0 if manner.sample else REPETITION_PENALTY)
    # named by the prompt alone: a model beside it changes nothing, and all models are given the same luck
    chance = Nucleus(stream(manner.seed, "try", prompt), temperature=manner.temperature, top_p=manner.top_p)
    pick = chance if manner.sample else most_probable
    reader = PieceReader.of(tokenizer)
    content, count = b"", 0
    for token in write(model, tokenizer, ids, pick=pick, stops=_stops(model, tokenizer), penalty=penalty):
        content += reader.read(str(tokenizer.convert_ids_to_tokens(token)))
        count += 1
        bar.advance()
        if count == manner.tokens:
            break
    begins = tokenizer.convert_ids_to_tokens(ids[0]) if ids[0] in tokenizer.all_special_ids else None
    return Reply(
        model=name,
        prompt=prompt,
        text=whole_characters(content),
        tokens=count,
        prompt_tokens=len(ids),
        tokens_per_word=tokens_per_word(tokenizer, [prompt]),
        seconds=time.monotonic() - began,
        ended="tokens" if count == manner.tokens else "model",
        begins_with=None if begins is None else str(begins),
    )
