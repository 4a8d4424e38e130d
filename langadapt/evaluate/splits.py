"""How a tokenizer splits a sentence, in a form that can be shown to people."""

from typing import TYPE_CHECKING

from langadapt.model.spans import PieceReader, spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def split_for_display(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[tuple[str, int]]:
    """(part of the text, tokens it takes) in order; tokens that split a character are shown together.

    A part counts more than one token only when its characters have no token boundary between them.
    """
    content = text.encode()
    parts: list[tuple[str, int]] = []
    first = waiting = 0
    for end in spans(tokenizer, text, PieceReader.of(tokenizer)).ends:
        waiting += 1
        at_character = end == len(content) or content[end] & 0xC0 != 0x80
        if at_character and end > first:
            parts.append((content[first:end].decode("utf-8"), waiting))
            first, waiting = end, 0
    if waiting and parts:
        parts[-1] = (parts[-1][0], parts[-1][1] + waiting)
    return parts


def first_sentence(text: str, max_characters: int = 110) -> str:
    """The first sentence or the first words of a text, for a sample."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for at, letter in enumerate(line[:max_characters]):
        if letter in ".!?。！？;·" and at >= 40:
            return line[: at + 1]
    return line if len(line) <= max_characters else line[:max_characters].rsplit(" ", 1)[0]
