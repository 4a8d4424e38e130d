"""What calibrate works on: text by language, how it is cut into windows, statistics that languages are added to."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.languages import normalise, primary
from langadapt.steps._calibrate_kept import SCHEMA
from langadapt.steps._given_facts import check_given
from langadapt.steps._vocabulary import lang_of

if TYPE_CHECKING:
    from pathlib import Path

    from langadapt.select.windows import Cut
    from langadapt.steps._calibrate_config import Config

Encode = Callable[[list[str]], list[list[int]]]
# Settings that decide what a number means: languages that are compared have to have them in common.
_COMMON = ("window_tokens", "skip_first", "chat", "taylor", "compute", "opener")


def corpora_of(inputs: Inputs) -> dict[str, Input]:
    """Text by language, as `check` has found it to be in order. DataError: a corpus is of another language."""
    given = inputs["corpora"]
    found = {normalise(name): source for name, source in given.items()} if isinstance(given, dict) else {}
    for lang, source in found.items():
        said = lang_of(source)
        if said is not None and said != "und" and primary(said) != primary(lang):
            raise DataError(
                f"`{source.given}` is a corpus in `{said}` and was given as `{lang}`",
                hint=f"write {said}={source.given}",
            )
    return dict(sorted(found.items()))


def no_text(lang: str, corpus: Input) -> DataError:
    """The error for a corpus in which there is nothing to measure on."""
    return DataError(f"corpus `{lang}` has no text", where=corpus.given)


def check_names(names: Mapping[str, Any]) -> None:
    """ConfigError for a name that is no language, or two names of one."""
    seen: dict[str, str] = {}
    for name in names:
        lang = normalise(name)
        if lang in seen:
            raise ConfigError(f"`{seen[lang]}` and `{name}` are one language", hint="give each language once")
        seen[lang] = name


def added_to(inputs: Inputs, langs: Mapping[str, Input], settings: Mapping[str, Any]) -> Input | None:
    """The statistics that languages are added to, of this model and measured in the same way."""
    given = inputs.get("add")
    if not isinstance(given, Input):
        return None
    if not given.exists:
        return given
    check_given(given, one(inputs, "model"), "statistics")
    if given.artifact is not None and given.artifact.manifest["schema"] != SCHEMA:
        raise ConfigError(
            f"`{given.given}` was measured by another version, which did not measure the same",
            where="add",
            hint="measure all its languages again, together with the new ones",
        )
    for name in _COMMON:
        if given.facts[name] != settings[name]:
            raise ConfigError(
                f"`{given.given}` was measured with `{name}` {given.facts[name]}, this run has {settings[name]}",
                where="add",
                hint="measure all languages in the same way, or they cannot be compared",
            )
    if both := sorted(given.facts["languages"].keys() & langs.keys()):
        raise ConfigError(
            f"`{given.given}` has `{both[0]}` already", where="add", hint="leave the language or `--add` out"
        )
    return given


def cut_of(config: "Config", tokenizer: Any, folder: "Path", rows: int) -> "Cut":
    """How text is cut into windows."""
    from langadapt.model.token_table import TokenTable
    from langadapt.select.windows import Cut

    opener = opener_of(config, tokenizer, rows)
    specials = set(TokenTable.from_folder(folder).special_ids) | ({opener} if opener is not None else set())
    return Cut(config.window_tokens, config.tokens, opener, frozenset(specials), config.skip_first, not config.chat)


def opener_of(config: "Config", tokenizer: Any, rows: int) -> int | None:
    """The token that opens windows and stands between documents: as asked, else the first that the model may know.

    None where the tokenizer has none: a window then begins with text.
    """
    from langadapt.model.separator import candidates

    known = candidates(tokenizer)
    if config.document_separator == "auto":
        return next((id for id in known.values() if id < rows), None)
    found = {**tokenizer.get_vocab(), **known}.get(config.document_separator)
    if found is None or found >= rows:
        raise ConfigError(f"the tokenizer has no token `{config.document_separator}`", where="document_separator")
    return int(found)


def encoder_of(config: "Config", tokenizer: Any, model: Input) -> Encode:
    """Texts -> ids. ConfigError with `chat` for a model without a chat template."""
    from langadapt.core.boundary import Reading

    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # a template writes special tokens, text that looks like one is text
    backend.encode_special_tokens = not config.chat
    if config.chat and not tokenizer.chat_template:
        raise ConfigError(
            f"`{model.given}` has no chat template", where="chat", hint="leave `--chat` out: it is no model for chats"
        )

    def encode(texts: list[str]) -> list[list[int]]:
        if config.chat:
            with Reading(f"the chat template of `{model.given}` cannot write a text of the corpus"):
                texts = [_as_chat(tokenizer, text) for text in texts]
        return [item.ids for item in backend.encode_batch_fast(texts, add_special_tokens=False)]

    return encode


def _as_chat(tokenizer: Any, text: str) -> str:
    """A text as a conversation: the first line is what the user says, the rest is the answer.

    Templates that print today's date get a fixed one, or the statistics would differ from day to day.
    """
    first, _, rest = text.strip().partition("\n")
    talk = [{"role": "user", "content": first}]
    if rest.strip():
        talk.append({"role": "assistant", "content": rest.strip()})
    date = "26 Jul 2024"
    return str(tokenizer.apply_chat_template(talk, tokenize=False, strftime_now=lambda form: date, date_string=date))
