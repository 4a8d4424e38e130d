"""The SentencePiece `.model` beside a tokenizer.json: kept up with it where the base has one that says the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.artifact import Output
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input
from langadapt.core.io import write_durably
from langadapt.steps._vocabulary import texts

if TYPE_CHECKING:
    from langadapt.model.spm_model import SpmModel
    from langadapt.vocab.outcome import Outcome
    from langadapt.vocab.spm_file import Places
    from langadapt.vocab.tokenizer_file import TokenizerFile

# Of each corpus; cutting it with both libraries takes a second or two.
_SAMPLE_BYTES = 500_000


@dataclass(frozen=True)
class Companion:
    """A base's `.model`, which was found to agree with its tokenizer.json."""

    spm: "SpmModel"
    places: "Places"

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.spm.name

    def write(self, new: "TokenizerFile", folder: Path, sample: Sequence[str]) -> "list[Outcome]":
        """Write the `.model` that goes with `new`, read it back, and compare the two."""
        from langadapt.vocab.spm_file import rewritten

        write_durably(folder / self.name, rewritten(self.spm, self.places, new).content())
        return self.checks(new, folder / self.name, sample)

    def checks(self, new: "TokenizerFile", written: Path, sample: Sequence[str]) -> "list[Outcome]":
        """Does the `.model` that was written say what `new` says?"""
        from langadapt.model import spm_model
        from langadapt.vocab import spm_checks

        again = spm_model.read(written)
        return [spm_checks.pieces(self.spm, self.places, new, again), spm_checks.cuts(again, new, with_fuzz(sample))]


def companion_of(
    folder: Path, base: "TokenizerFile", sample: Sequence[str], out: Output
) -> "tuple[TokenizerFile, Companion | None]":
    """The base as it has to grow, and its `.model`; None if there is none that says what tokenizer.json says.

    A warning says why one is left out: it is damaged, of another kind, or already differs in the base.
    """
    base, companion, why = look_beside(folder, base, sample)
    if why is not None:
        out.progress.warn(f"{why}; load the tokenizer from tokenizer.json")
    return base, companion


def look_beside(
    folder: Path, base: "TokenizerFile", sample: Sequence[str]
) -> "tuple[TokenizerFile, Companion | None, str | None]":
    """The same, and instead of the warning why one that is there is no companion."""
    from langadapt.model import spm_model
    from langadapt.vocab import spm_checks
    from langadapt.vocab.spm_file import Places, by_score

    path = spm_model.find(folder)
    if path is None:
        return base, None, None
    try:
        spm = spm_model.read(path)
        differs = spm_checks.differences(spm, base, with_fuzz(sample))
        if not differs:
            ranks = by_score(spm) if spm.kind == "bpe" else None
            return replace(base, ranks=ranks), Companion(spm, Places.of(spm, base)), None
        why = f"in the base it disagrees with tokenizer.json: {'; '.join(differs)}"
    except DataError as error:
        why = error.message
    return base, None, f"{path.name} is not written: {why}"


def with_fuzz(sample: Sequence[str]) -> list[str]:
    """The sample and awkward texts; lines of the sample too, since a text's beginning is cut in a way of its own."""
    from langadapt.vocab.checks import fuzz_texts

    return [*sample, *(line for text in sample for line in text.splitlines()), *fuzz_texts([])]


def sample_of(corpora: Sequence[Input]) -> list[str]:
    """Held-out text of each corpus, the beginning of the train part where there is none."""
    return [
        text
        for corpus in corpora
        for text in texts(corpus, "held-out", _SAMPLE_BYTES) or texts(corpus, "train", _SAMPLE_BYTES)
    ]
