"""What a model writes after the first words of a held-out document: no dice, same prompt text, same byte budget."""

import codecs
import hashlib
from collections.abc import Iterable
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
    runner: Any = model
    allowed = _allowed(tokenizer, int(runner.get_output_embeddings().weight.shape[0])).to(model.device)
    ids = torch.tensor([[prefix_id, *spans(tokenizer, prompt, reader).ids]], device=model.device)
    written = b""
    cache: Any = None
    used: set[int] = set()
    with torch.inference_mode():
        while len(written) < max_bytes:
            result = runner(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            token = int(torch.argmax(_penalised(result.logits[0, -1].float(), used) + allowed))
            used.add(token)
            written += reader.read(str(tokenizer.convert_ids_to_tokens(token))) or b" "
            ids = torch.tensor([[token]], device=model.device)
            if progress is not None:
                progress.advance(0)
    # not final: a character that the budget cuts in two is left out; bytes that are no character stay visible
    return codecs.getincrementaldecoder("utf-8")("replace").decode(written[:max_bytes])


def _penalised(logits_V: torch.Tensor, used: set[int]) -> torch.Tensor:
    """Divide positive logits of used tokens by the penalty, multiply negative ones by it."""
    chosen = sorted(used)
    values = logits_V[chosen]
    lower = torch.where(values > 0, values / REPETITION_PENALTY, values * REPETITION_PENALTY)
    return logits_V.index_copy(0, torch.tensor(chosen, dtype=torch.long, device=logits_V.device), lower)


def _allowed(tokenizer: "PreTrainedTokenizerBase", rows: int) -> torch.Tensor:
    """0 for tokens of text, minus infinity for special tokens and rows without a token."""
    mask = torch.zeros(rows)
    mask[len(tokenizer) :] = -torch.inf
    special = [token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special]
    mask[sorted({*special, *tokenizer.all_special_ids})] = -torch.inf
    return mask
