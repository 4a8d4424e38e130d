"""What the figures allow one to say, as sentences; never more than the interval shows."""

from collections.abc import Mapping
from typing import Any

from langadapt.core.languages import display_name, set_title


def signed(value: float, digits: int = 3) -> str:
    """-0.0125 -> `−0.013`, with a real minus sign and a plus where there is a gain."""
    text = f"{abs(value):.{digits}f}"
    return f"{'−' if value < 0 else '+' if value > 0 else '±'}{text}"


def percent(ratio: float) -> str:
    """0.651 -> `34.9 % fewer`; 1.035 -> `3.5 % more`."""
    return f"{abs(ratio - 1) * 100:.1f} % {'fewer' if ratio < 1 else 'more'}"


def set_sentence(language: str, name: str, entry: Mapping[str, Any]) -> str:
    """One honest sentence on base against adapted on one set."""
    bits = entry["bits_per_byte"]
    title = set_title(language, name)
    if bits["ratio"] is None:
        return f"{title}: no score, because {entry['reason']}."
    figures = f"{bits['adapted']:.3f} bits per byte, the base model {bits['base']:.3f}"
    if bits["delta_low"] is None:
        return f"{title}: {figures}; {entry['segments']} segments are too few for an interval, so nothing is claimed."
    interval = (
        f"difference {signed(bits['delta'])}, 95 % interval {signed(bits['delta_low'])} to {signed(bits['delta_high'])}"
    )
    if bits["verdict"] == "no detectable change":
        return (
            f"{title}: no detectable change. The adapted model needs {figures} ({interval}); "
            f"a difference under about {bits['detectable']:.3f} would usually not show on this set."
        )
    return f"{title}: {bits['verdict']}. The adapted model needs {figures}: {percent(bits['ratio'])} ({interval})."


def control_sentence(language: str, name: str, entry: Mapping[str, Any]) -> str | None:
    """Adapted against the control; equal quality is claimed only if the interval holds zero."""
    bits, tokens = entry["bits_per_byte"], entry["tokens_per_byte"]
    if bits.get("delta_control") is None or bits.get("delta_control_low") is None:
        return None
    title = f"{set_title(language, name)}, against the control"
    interval = f"95 % interval {signed(bits['delta_control_low'])} to {signed(bits['delta_control_high'])}"
    share = tokens["adapted"] / tokens["control"]
    cost = f"{share:.2f} of the control's tokens for the same text"
    difference = f"adapted minus control is {signed(bits['delta_control'])} bits per byte ({interval})"
    if bits["verdict_control"] == "no detectable change":
        return f"{title}: no detectable difference in quality, with {cost}; {difference}."
    return f"{title}: {bits['verdict_control']}; {difference}, with {cost}."


def null_sentence(language: str, name: str, entry: Mapping[str, Any]) -> str | None:
    """A warning when a model is no better than guessing every token alike."""
    bits = entry["bits_per_byte"]
    worse = [
        model for model in ("base", "adapted") if bits[model] is not None and bits[model] >= bits[f"uniform_{model}"]
    ]
    if not worse:
        return None
    title = set_title(language, name)
    return f"{title}: the {' and the '.join(worse)} model is no better than guessing tokens at random."


def add_sentences(languages: dict[str, Any]) -> None:
    """Give every language its English name and every set its sentences."""
    for lang, language in languages.items():
        language["name"] = display_name(lang)
        for name, entry in language["sets"].items():
            makers = (set_sentence, control_sentence, null_sentence)
            made = [maker(language["name"], name, entry) for maker in makers]
            entry["sentences"] = [text for text in made if text]
