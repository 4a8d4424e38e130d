"""What a model writes after the first words of a held-out document: greedy, same prompt text, same byte budget."""

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

    Special tokens and rows without a token are never chosen: the question is how the text goes on, not when it ends.
    """
    reader = PieceReader.of(tokenizer)
    runner: Any = model
    allowed = _allowed(tokenizer, int(runner.get_output_embeddings().weight.shape[0])).to(model.device)
    ids = torch.tensor([[prefix_id, *spans(tokenizer, prompt, reader).ids]], device=model.device)
    written = b""
    cache: Any = None
    with torch.inference_mode():
        while len(written) < max_bytes:
            result = runner(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            token = int(torch.argmax(result.logits[0, -1].float() + allowed))
            written += reader.read(str(tokenizer.convert_ids_to_tokens(token))) or b" "
            ids = torch.tensor([[token]], device=model.device)
            if progress is not None:
                progress.advance(0)
    # not final: a character that the budget cuts in two is left out; bytes that are no character stay visible
    return codecs.getincrementaldecoder("utf-8")("replace").decode(written[:max_bytes])


def _allowed(tokenizer: "PreTrainedTokenizerBase", rows: int) -> torch.Tensor:
    """0 for tokens of text, minus infinity for special tokens and rows without a token."""
    mask = torch.zeros(rows)
    mask[len(tokenizer) :] = -torch.inf
    special = [token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special]
    mask[sorted({*special, *tokenizer.all_special_ids})] = -torch.inf
    return mask
