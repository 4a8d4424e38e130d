"""Checks through transformers: what people load is what was written, with the same roles and the same chat."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from langadapt.core.errors import DataError
from langadapt.vocab.checks import fuzz_texts
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLE_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_TALKS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "What is 2 + 2?"),),
    (("user", "Hello!"), ("assistant", "Hello. How can I help you today?"), ("user", "Write a list:\n- one\n- two")),
    (("system", "You are a helpful assistant."), ("user", "Thank you."), ("assistant", "You are welcome.")),
)


@dataclass(frozen=True)
class Seen:
    """What a tokenizer does as transformers loads it, so that it need not stay in memory to be compared.

    Roles -> (token, id); special tokens with their ids; the chat template, and the conversations that it writes with
    the ids of each.
    """

    roles: Mapping[str, tuple[str | None, int | None]]
    specials: tuple[tuple[str, int], ...]
    template: Any
    chats: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Seen":
        """Look at a loaded tokenizer."""
        named = zip(map(str, tokenizer.all_special_tokens), tokenizer.all_special_ids, strict=True)
        texts = chat_texts(tokenizer)
        return cls(
            {role: (getattr(tokenizer, role), getattr(tokenizer, f"{role}_id")) for role in ROLE_TOKENS},
            tuple(named),
            tokenizer.chat_template,
            tuple((text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])) for text in texts),
        )


def chat_texts(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """A few fixed conversations as the chat template writes them; empty without a template.

    A template may refuse a conversation (no system role, say): that one is left out. Templates that print today's
    date get a fixed one, or the guard would differ from day to day.
    """
    if not tokenizer.chat_template:
        return []
    texts = []
    for talk in _TALKS:
        messages = [{"role": role, "content": content} for role, content in talk]
        for prompt in (False, True):
            try:
                text = tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    strftime_now=lambda form: "26 Jul 2024",
                    date_string="26 Jul 2024",
                )
            except (TemplateError, ValueError, TypeError, KeyError):
                continue
            texts.append(str(text))
    return texts


def template_sources(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The text of the chat template(s): its literals reach the model in every conversation."""
    template: Any = tokenizer.chat_template
    if not template:
        return []
    return sorted(template.values()) if isinstance(template, dict) else [str(template)]


def insist_on_the_file(loaded: "PreTrainedTokenizerBase", file: TokenizerFile) -> None:
    """DataError if transformers cuts text in another way than tokenizer.json says.

    Some of its classes replace the pipeline of the file by their own. What is learned from the file would then be
    used with another tokenizer.
    """
    for text, ids in zip(fuzz_texts([]), encode_all(file.tokenizer, fuzz_texts([])), strict=True):
        if loaded(text, add_special_tokens=False)["input_ids"] != ids:
            raise DataError(
                f"transformers ({type(loaded).__name__}) cuts {text[:40]!r} in another way than this file says",
                where=file.place,
                hint="load it with transformers.AutoTokenizer and save it with save_pretrained: then both agree",
            )


def loaded_checks(
    base: Seen,
    new: "PreTrainedTokenizerBase",
    file: TokenizerFile,
    texts: Sequence[str],
    *,
    gone: Collection[str] = (),
) -> list[Outcome]:
    """`base` and `new` as transformers loads them, `file` as it was written, `texts` of the target language.

    Tokens in `gone` were given up: the new tokenizer has them no more, not as special ones either.
    """
    after = Seen.of(new)
    return [roles_kept(base, after, gone), chat_kept(base, after), loads_as_written(new, file, texts)]


def roles_kept(base: Seen, new: Seen, gone: Collection[str] = (), *, ids: Mapping[int, int] | None = None) -> Outcome:
    """Begin, end, padding and the other roles have the tokens that they had, and so have all special tokens not `gone`.

    Under the ids that they had, or under those that `ids` maps them to; then the check is called `roles_follow`.
    """

    def now(number: int | None) -> int | None:
        return number if ids is None or number is None else ids.get(number, -1)

    broken = []
    for role in ROLE_TOKENS:
        token, number = base.roles[role]
        before = token, now(number)
        if before != new.roles[role]:
            broken.append(f"{role}: {before} -> {new.roles[role]}")
    before_all = {token: now(number) for token, number in base.specials if token not in gone}
    after_all = dict(new.specials)
    if before_all != after_all:
        broken.append(f"special tokens: {before_all} -> {after_all}")
    return Outcome("roles_kept" if ids is None else "roles_follow", len(ROLE_TOKENS) + 1, tuple(broken))


def template_kept(base: Seen, new: Seen) -> list[str]:
    """How the new one's chat template, or what it writes, differs from the base's."""
    broken = []
    if base.template != new.template:
        broken.append("the template changed")
    if [text for text, _ in base.chats] != [text for text, _ in new.chats]:
        broken.append("a conversation is written differently")
    return broken


def chat_kept(base: Seen, new: Seen) -> Outcome:
    """The chat template is the same, writes the same text, and that text has the same ids."""
    broken = template_kept(base, new)
    for (text, before), (_, after) in zip(base.chats, new.chats, strict=False):
        if before != after:
            broken.append(f"{text[:60]!r} has other ids")
    return Outcome("chat_kept", len(base.chats) + 1, tuple(broken))


def loads_as_written(new: "PreTrainedTokenizerBase", file: TokenizerFile, texts: Sequence[str]) -> Outcome:
    """transformers gives the ids of the file, and so does what it saves and loads again.

    The file lets its own tokenizers go: three of a large vocabulary need not be in memory at once.
    """
    from transformers import AutoTokenizer

    samples = [*texts, *fuzz_texts([])]
    expected = list(encode_all(file.tokenizer, samples))
    file.let_go()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new.save_pretrained(str(folder))
        again = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    broken = []
    for what, tokenizer in (("loaded", new), ("saved and loaded again", again)):
        for text, ids in zip(samples, expected, strict=True):
            if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
                broken.append(f"{what}: {text[:40]!r}")
    return Outcome("loads_as_written", 2 * len(samples), tuple(broken))
