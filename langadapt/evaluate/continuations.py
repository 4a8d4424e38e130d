"""What a model writes after the first words of a held-out document: no dice, same prompt text, same byte budget."""

import codecs
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langadapt.core.progress import Task
from langadapt.core.types import Document
from langadapt.model.cuts import next_cut
from langadapt.model.spans import PieceReader, spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPT_BYTES = 60
NEW_BYTES = 160
# A small model that always takes the most probable token soon says one phrase for ever. What it has written already is
# made less likely, by the factor and rule of Keskar et al. 2019 (CTRL, section 4.1), for every model alike.
REPETITION_PENALTY = 1.3


@dataclass(frozen=True, slots=True)
class Prompt:
    """The first words of a document and what the document really says next."""

    document: str
    text: str
    actual: str


def choose_prompts(documents: Iterable[Document], count: int, *, seed: int, name: str) -> list[Prompt]:
    """`count` documents by hash; each must go on for NEW_BYTES after a prompt of about PROMPT_BYTES."""
    found = []
    for document in documents:
        content = document.text.encode()
        cut = next_cut(content, PROMPT_BYTES)
        if len(content) - cut < NEW_BYTES or "\n" in document.text[:PROMPT_BYTES]:
            continue
        actual = content[cut : cut + NEW_BYTES].decode("utf-8", "ignore")
        prompt = Prompt(document.id, content[:cut].decode("utf-8"), actual)
        key = hashlib.blake2b(f"{seed}\x1f{name}\x1f{document.id}".encode(), digest_size=16).digest()
        found.append((key, prompt))
    return [prompt for _, prompt in sorted(found, key=lambda entry: entry[0])[:count]]


def continue_text(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    *,
    prefix_id: int,
    max_bytes: int = NEW_BYTES,
    progress: Task | None = None,
) -> str:
    """The most probable token again and again until `max_bytes` of text are there, cut at a whole character.

    Tokens that this continuation holds already are made less likely (REPETITION_PENALTY). Special tokens and rows
    without a token are never chosen: the question is how the text goes on, not when it ends.
    """
    reader = PieceReader.of(tokenizer)
    ids = [prefix_id, *spans(tokenizer, prompt, reader).ids]
    written = b""
    for token in write(model, tokenizer, ids, penalty=REPETITION_PENALTY):
        written += reader.read(str(tokenizer.convert_ids_to_tokens(token))) or b" "
        if progress is not None:
            progress.advance(0)
        if len(written) >= max_bytes:
            break
    return whole_characters(written[:max_bytes])


def whole_characters(written: bytes) -> str:
    """Text of bytes that may end inside a character: that one is left out; bytes that are no character stay visible."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(written)


def most_probable(logits_V: torch.Tensor) -> int:
    """The token with the highest logit."""
    return int(torch.argmax(logits_V))


def write(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[int],
    *,
    pick: Callable[[torch.Tensor], int] = most_probable,
    stops: Sequence[int] = (),
    penalty: float = 1.0,
) -> Iterator[int]:
    """Tokens after `ids`, one by one, for as long as they are asked for or until `pick` takes one of `stops`.

    `pick` is given float32 logits on the CPU in which what may not be written is minus infinity: special tokens (except
    `stops`) and rows without a token. Tokens written already are made less likely by `penalty`.
    """
    runner: Any = model
    allowed = _allowed(tokenizer, int(runner.get_output_embeddings().weight.shape[0]), stops)
    given = torch.tensor([list(ids)], device=model.device)
    cache: Any = None
    used: set[int] = set()
    while True:
        # entered for each token: a generator that waits must not leave its caller in inference mode
        with torch.inference_mode():
            seen = {} if cache is None else {"past_key_values": cache}
            result = runner(input_ids=given, use_cache=True, **seen)
            cache = getattr(result, "past_key_values", None)
            token = pick(_penalised(result.logits[0, -1].float().cpu(), used, penalty) + allowed)
        if token in stops:
            return
        used.add(token)
        yield token
        new = torch.tensor([[token]], device=model.device)
        # models without attention (Mamba) keep a state of another kind: they read the text again
        given = torch.cat([given, new], dim=1) if cache is None else new


def _penalised(logits_V: torch.Tensor, used: set[int], penalty: float) -> torch.Tensor:
    """Divide positive logits of used tokens by the penalty, multiply negative ones by it."""
    if penalty == 1.0:
        return logits_V
    chosen = sorted(used)
    values = logits_V[chosen]
    lower = torch.where(values > 0, values / penalty, values * penalty)
    return logits_V.index_copy(0, torch.tensor(chosen, dtype=torch.long, device=logits_V.device), lower)


def _allowed(tokenizer: "PreTrainedTokenizerBase", rows: int, stops: Sequence[int]) -> torch.Tensor:
    """0 for tokens of text and `stops`, minus infinity for other special tokens and rows without a token."""
    special = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    # by the ids themselves: where some are not in use, the number of tokens is below the highest id
    written = (set(tokenizer.get_vocab().values()) - special - set(tokenizer.all_special_ids)) | set(stops)
    mask = torch.full((rows,), -torch.inf)
    mask[sorted(token for token in written if 0 <= token < rows)] = 0.0
    return mask
