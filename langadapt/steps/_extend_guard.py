"""How extend-vocab makes its guard: words of protected text, their other forms, and what is always guarded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.inputs import Input
from langadapt.steps._vocabulary import count

if TYPE_CHECKING:
    from langadapt.steps._extend_config import Config
    from langadapt.steps._extend_modes import Target
    from langadapt.vocab.guard import Guard
    from langadapt.vocab.tokenizer_file import TokenizerFile

_SHOWN = 20


@dataclass(frozen=True)
class Guarded:
    """The guard, and forms of protected words that are not in it because they cost the target too much."""

    guard: "Guard"
    let_go: tuple[str, ...]

    def record(self, base: "TokenizerFile") -> dict[str, Any]:
        """For checks.json."""
        shown = [base.spelling.content(form).decode() for form in self.let_go[:_SHOWN]]
        return {"forms": len(self.let_go), "examples": shown}


def guarded(
    config: "Config",
    base: "TokenizerFile",
    loaded: Any,
    guards: Sequence[Input],
    target: "Target",
    met: set[str],
    out: Output,
) -> Guarded:
    """The guard of corpora and of what is always guarded; `loaded` is the base as transformers loads it.

    Strings of added tokens that stand in the texts go into `met`.
    """
    from langadapt.vocab.forms import too_dear
    from langadapt.vocab.gguf_probe import PROBE
    from langadapt.vocab.guard import Guard, always_guarded, with_variants
    from langadapt.vocab.loaded import chat_texts, template_sources
    from langadapt.vocab.words import count_words

    if not guards:
        out.progress.warn("no guard text: only markup, numbers and chat scaffolding keep their tokens for certain")
    fixed = count_words(base, always_guarded([*chat_texts(loaded), *template_sources(loaded), PROBE]))
    always = with_variants(fixed, base.spelling)
    seen = count(base, guards, config.max_guard_bytes, "counting protected words", out, met)
    if config.guard_forms == "none":
        return Guarded(Guard.of(base, always | set(seen), out.progress), ())
    words = always | with_variants(seen, base.spelling)
    dear: frozenset[str] = frozenset()
    if config.guard_forms == "worth" and "merges" in base.model:
        out.progress.note("weighing the forms of protected words")
        dear = too_dear(base, seen, always, target.words)
    return Guarded(Guard.of(base, words - dear, out.progress), tuple(sorted(dear)))
