"""What an unfinished calibration has measured, kept so that a kill loses half a minute."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Identity, keeping, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from langadapt.select.statistics import LanguageStatistics

_DONE = "done"
# 2 has what norms read: what an older version has read lacks it.
SCHEMA = 2


@dataclass(frozen=True)
class Kept:
    """Folder `<out>.partial`: for each language the newest state, `run` is the fingerprint of the run it belongs to."""

    folder: Path
    run: str
    progress: Progress

    def save(self, found: "LanguageStatistics", windows: int, facts: dict[str, Any], *, done: bool = False) -> None:
        """Write the state after `windows` windows, then remove older ones of this language."""
        from langadapt.select.statistics import write_language

        place = self.folder / found.lang / (_DONE if done else f"{windows:08d}")
        identity = Identity(
            "statistics", "calibrate", SCHEMA, {"lang": found.lang, "windows": windows}, {"run": self.run}
        )
        # what is there was passed over as damaged, and the run has come to this place again
        with keeping(place, identity, progress=self.progress) as target:
            write_language(target.folder, found)
            target.commit({**facts, "windows": windows})
        for old in place.parent.iterdir():
            if old.is_dir() and old != place:
                shutil.rmtree(old)

    def done(self, lang: str) -> Artifact | None:
        """The statistics of a language that is finished."""
        return self._intact(self.folder / lang / _DONE)

    def finished(self, lang: str) -> Artifact:
        """The same, of one that was finished just now."""
        found = self.done(lang)
        if found is None:
            raise DataError(f"what was measured of `{lang}` cannot be read back", hint="run the same command again")
        return found

    def newest(self, lang: str) -> Artifact | None:
        """The newest state of a language that is not finished; damaged ones are named and passed over."""
        folder = self.folder / lang
        for torn in folder.glob("*.tmp-*"):  # of a run that was killed; the caller holds the run's lock
            shutil.rmtree(torn, ignore_errors=True)
        places = sorted((path for path in folder.glob("*") if path.name.isdecimal()), reverse=True)
        return next((found for place in places if (found := self._intact(place)) is not None), None)

    def _intact(self, place: Path) -> Artifact | None:
        if not place.is_dir():
            return None
        try:
            artifact = open_artifact(place, "statistics")
            artifact.verify()
        except DataError as error:
            self.progress.warn(f"what was kept of `{place.parent.name}` is passed over: {error.message}")
            return None
        mine = artifact.manifest["inputs"].get("run") == self.run and artifact.manifest["schema"] == SCHEMA
        return artifact if mine else None
