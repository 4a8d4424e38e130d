"""Language codes: BCP 47 or ISO 639 in any length (`hu`, `hun`, `hun_Latn`), reduced to one short form (`hu`)."""

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

from langadapt.core.errors import ConfigError

# What people type instead of a code: the English name, or the code of a country. Only for suggestions.
_NAMES = {
    "afrikaans": "af", "albanian": "sq", "amharic": "am", "arabic": "ar", "armenian": "hy", "basque": "eu",
    "belarusian": "be", "bengali": "bn", "bosnian": "bs", "breton": "br", "bulgarian": "bg", "burmese": "my",
    "catalan": "ca", "chinese": "zh", "croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en",
    "esperanto": "eo", "estonian": "et", "faroese": "fo", "finnish": "fi", "french": "fr", "galician": "gl",
    "georgian": "ka", "german": "de", "greek": "el", "hausa": "ha", "hebrew": "he", "hindi": "hi", "hungarian": "hu",
    "icelandic": "is", "indonesian": "id", "irish": "ga", "italian": "it", "japanese": "ja", "kazakh": "kk",
    "khmer": "km", "korean": "ko", "kurdish": "ku", "lao": "lo", "latvian": "lv", "lithuanian": "lt",
    "macedonian": "mk", "malay": "ms", "maltese": "mt", "mongolian": "mn", "nepali": "ne", "norwegian": "no",
    "persian": "fa", "farsi": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "serbian": "sr", "sinhala": "si", "slovak": "sk", "slovene": "sl", "slovenian": "sl", "somali": "so",
    "spanish": "es", "swahili": "sw", "swedish": "sv", "tamil": "ta", "thai": "th", "tibetan": "bo", "turkish": "tr",
    "ukrainian": "uk", "urdu": "ur", "uzbek": "uz", "vietnamese": "vi", "welsh": "cy", "yoruba": "yo", "zulu": "zu",
    "cz": "cs", "cn": "zh", "dk": "da", "gr": "el", "jp": "ja", "kp": "ko", "vn": "vi", "rs": "sr",
}  # fmt: skip


def display_name(code: str) -> str:
    """`hu` -> `Hungarian`; a code without a known English name stays as it is."""
    names = [name for name, known in _NAMES.items() if known == code.split("-")[0] and len(name) > 2]
    return names[0].capitalize() + code[len(code.split("-")[0]) :] if names else code


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
    near = get_close_matches(code.strip().lower(), _NAMES, n=1, cutoff=0.75 if len(code) > 2 else 1.0)
    if near:
        return f"did you mean `{_NAMES[near[0]]}`?"
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
