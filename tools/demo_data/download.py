"""Packages through their ordinary clients: pip for model and detector, apt-get with private folders for text."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def fail(message: str, hint: str = "") -> SystemExit:
    """What to raise when it cannot go on."""
    return SystemExit(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""))


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wheel(name: str, version: str, folder: Path) -> Path:
    """One wheel without its dependencies; nothing is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "-d", str(folder), f"{name}=={version}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    found = sorted(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if done.returncode != 0 or not found:
        raise fail(f"pip cannot download {name} {version}:\n{done.stderr.strip()}", "is the package index reachable?")
    return found[0]


def unpack(archive: Path, folder: Path, *suffixes: str) -> list[Path]:
    """Files of a wheel whose names end so, flat into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if name.endswith(suffixes):
                target = folder / Path(name).name
                with packed.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                written.append(target)
    return written


def join(parts: list[Path], whole: Path) -> Path:
    """One file of its parts, which go; a single part is renamed."""
    if len(parts) == 1:
        return parts[0].rename(whole)
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
            part.unlink()
    return whole


class Apt:
    """apt-get with its own state in `folder`: no root, nothing installed, the system's lists untouched."""

    def __init__(self, folder: Path) -> None:
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise fail(
                    f"`{tool}` is not here: the demo's text comes from Debian packages",
                    "on another system bring your own text: make demo TARGET=hu TEXT=my.txt",
                )
        self.packages = folder / "deb"
        for part in ("lists/partial", "cache/archives/partial", "deb"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._options = ["-qq", "-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        # root's apt would hand the download to a user who may not write here
        self._options += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"]

    def update(self) -> None:
        """Fetch the lists of the configured archives; one broken third-party archive does not stop it."""
        done = self._run("apt-get", "update")
        if done.returncode != 0 and not any((self.packages.parent / "lists").glob("*Packages*")):
            raise fail(f"apt-get update failed:\n{done.stderr.strip()}", "is the Debian archive reachable?")

    def available(self, names: tuple[str, ...]) -> list[str]:
        """Those of `names` that this distribution has, in the given order."""
        shown = self._run("apt-cache", "show", *names).stdout
        have = {line.removeprefix("Package: ") for line in shown.split("\n") if line.startswith("Package: ")}
        return [name for name in names if name in have]

    def really(self, name: str) -> str:
        """`python3-doc` only depends on the package with the text: the one that it depends on, else the name."""
        shown = self._run("apt-cache", "depends", name).stdout
        needed = [line.split(": ", 1)[1] for line in shown.split("\n") if line.strip().startswith("Depends: ")]
        return next((found for found in needed if found.startswith(name.split("-")[0]) and found != name), name)

    def download(self, names: list[str]) -> list[Path]:
        """The packages as .deb files; apt checks their digests against the signed lists."""
        done = self._run("apt-get", "download", *names, cwd=self.packages)
        if done.returncode != 0:
            raise fail(f"apt-get download failed:\n{done.stderr.strip()}", "run the same command again")
        found = {path.name.split("_")[0]: path for path in sorted(self.packages.glob("*.deb"))}
        return [found[name] for name in names]

    def _run(self, tool: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [tool, *self._options, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
