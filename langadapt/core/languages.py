"""Language codes: BCP 47 or ISO 639 in any length (`hu`, `hun`, `hun_Latn`), reduced to one short form (`hu`)."""

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from langadapt.core.errors import ConfigError
from langadapt.core.language_names import ALIASES, NAMES

# What people type instead of a code, in lower case. Only for suggestions.
_TYPED = {name.lower(): code for code, name in NAMES.items()} | ALIASES


def known_languages() -> list[tuple[str, str]]:
    """(code, English name) of the languages that have a name here, by name; any other valid code works as well."""
    return sorted(NAMES.items(), key=lambda item: item[1])


def display_name(code: str) -> str:
    """`hu` -> `Hungarian`; a code without a known English name stays as it is."""
    language, *_ = code.split("-")
    return NAMES[language] + code[len(language) :] if language in NAMES else code


def normalise(code: str) -> str:
    """`hun_Latn` -> `hu`, `cmn` -> `cmn`, `zh-Hant` stays; ConfigError with a suggestion for what is no language.

    Deprecated codes are replaced and a script that goes without saying is dropped (CLDR rules, by langcodes).
    """
    short = _standard(code.strip())
    if short is None:
        raise ConfigError(f"`{code}` is not a language code", hint=_suggestion(code))
    return short


def primary(code: str) -> str:
    """The language without script and region: `zh-Hant` -> `zh`."""
    return normalise(code).split("-")[0]


@lru_cache(maxsize=4096)
def _standard(code: str) -> str | None:
    import langcodes

    tag = re.sub("_", "-", code)
    if not re.fullmatch(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*", tag):
        return None
    try:
        if not langcodes.tag_is_valid(tag):
            return None
        # CLDR turns Serbo-Croatian into Serbian; BCP 47 keeps the code, and so does text that mixes the standards
        head, _, tail = tag.partition("-")
        if head.lower() in ("sh", "hbs"):
            return "sh" + str(langcodes.standardize_tag("und-" + tail)).removeprefix("und") if tail else "sh"
        return str(langcodes.standardize_tag(tag))
    except ValueError:
        return None


def _suggestion(code: str) -> str:
    near = get_close_matches(code.strip().lower(), _TYPED, n=1, cutoff=0.75 if len(code) > 2 else 1.0)
    if near:
        return f"did you mean `{_TYPED[near[0]]}`?"
    return "write a BCP 47 or ISO 639 code such as `hu`, `hun` or `hun_Latn`; `qaa` to `qtz` are free for private use"


def _validated(code: str) -> str:
    try:
        return normalise(code)
    except ConfigError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error


Lang = Annotated[str, AfterValidator(_validated)]
"""Type of a config field that holds a language code."""


def set_title(language: str, name: str) -> str:
    """How sentences about one set of a language begin; the report takes this beginning off where a heading says it."""
    return f"{language}, set {name}"
