"""Debian package -> documents: walks the package without installing it and sends each file to its reader."""

import gzip
import hashlib
import re
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo_data.catalogue import messages
from demo_data.markup import paragraphs, roff_paragraphs

LEAST_CHARACTERS = 20
# Messages shorter than this are labels, which say nothing about the language.
LEAST_MESSAGE_CHARACTERS = 40
MESSAGES_A_DOCUMENT = 12
# Long pages are cut, so that a held-out share of 2 % of documents is close to 2 % of the text.
DOCUMENT_CHARACTERS = 8_000

_HELP = re.compile(r"\./usr/share/help/([^/]+)/(.*\.(?:page|xml|docbook))$")
_OFFICE = re.compile(r"\./usr/share/libreoffice/help/([^/]+)/(text/.*\.html)$")
_MESSAGES = re.compile(r"/([A-Za-z_@]+)/LC_MESSAGES/.*\.mo$")
_WORDPRESS = re.compile(r"/wordpress/.*/(?:[a-z-]+-)?([a-z]{2,3}(?:_[A-Z]{2})?)\.mo$")
_MANUAL = re.compile(r"\./usr/share/man/(?:([^/]+)/)?(man\d/.*)$")
_COPYRIGHT = re.compile(r"\./usr/share/doc/[^/]+/copyright$")
_ENGLISH_NAMES = ("C", "en-US", "en_US", "en")


@dataclass
class Package:
    """What one package gave: documents by language (key, paragraphs) and its licences, if they could be read."""

    name: str
    texts: dict[str, list[tuple[str, list[str]]]] = field(default_factory=dict)
    licences: list[str] | None = None

    def add(self, lang: str, key: str, found: list[str]) -> None:
        """Keep a page if there is anything to read in it."""
        kept = [text for text in found if len(text) >= LEAST_CHARACTERS and any(letter.isalpha() for letter in text)]
        if kept:
            self.texts.setdefault(lang, []).append((key, kept))


def extract(deb: Path, langs: tuple[str, ...]) -> Package:
    """Read one .deb; languages other than `langs` are passed over."""
    package = Package(deb.name.split("_")[0])
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            opened = archive.extractfile(member) if member.isfile() else None
            if opened is not None:
                _take(package, member.name, opened.read, langs)
    if process.returncode != 0:
        raise SystemExit(f"fetch_demo_data: {deb} cannot be unpacked; delete it and run the same command again")
    return package


def _take(package: Package, name: str, read: Callable[[], bytes], langs: tuple[str, ...]) -> None:
    found = _HELP.match(name) or _OFFICE.match(name)
    if found:
        lang = _language(found[1], langs)
        if lang:
            package.add(lang, found[2], paragraphs(_text(read())))
    elif package.name.startswith(("anarchism", "python3")) and name.endswith(".html"):
        if "en" in langs and "genindex" not in name and "/whatsnew/changelog" not in name:
            package.add("en", name.rsplit("/html/", 1)[-1], paragraphs(_text(read())))
    elif found := (_MESSAGES.search(name) or _WORDPRESS.search(name)):
        lang = _language(found[1], langs)
        if lang and lang != "en":
            _add_messages(package, lang, name.rsplit("/", 1)[-1], read(), langs)
    elif package.name.startswith("manpages") and (found := _MANUAL.match(name)):
        lang = _language(found[1] or "C", langs)
        if lang:
            package.add(lang, found[2], roff_paragraphs(_text(_unpacked(read()))))
    elif _COPYRIGHT.match(name):
        package.licences = _licences(_text(read()))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error):
        return b""


def _language(folder: str, langs: tuple[str, ...]) -> str | None:
    if folder in _ENGLISH_NAMES:
        return "en" if "en" in langs else None
    wanted = {lang.replace("-", "_").lower(): lang for lang in langs if lang != "en"}
    name = folder.replace("-", "_").lower()
    # hu_HU is hu; pt_BR is pt_BR, and pt only if nothing closer was asked for
    return wanted.get(name) or wanted.get(name.split("_")[0])


def _add_messages(package: Package, lang: str, key: str, data: bytes, langs: tuple[str, ...]) -> None:
    pairs = [pair for pair in messages(data) if len(pair[1]) >= LEAST_MESSAGE_CHARACTERS]
    for start in range(0, len(pairs), MESSAGES_A_DOCUMENT):
        part = pairs[start : start + MESSAGES_A_DOCUMENT]
        package.add(lang, f"{key}#{start}", [translated for _, translated in part])
        if "en" in langs:
            package.add("en", f"{key}#{start}", [english for english, _ in part])


def _licences(text: str) -> list[str] | None:
    if not text.lstrip().startswith("Format:"):
        return None
    found = {line.partition(":")[2].strip() for line in text.split("\n") if line.startswith("License:")}
    return sorted(found - {""}) or None


def documents(package: Package, lang: str, seen: set[int], max_bytes: int | None = None) -> Iterator[tuple[str, str]]:
    """(key, text) of a language, without paragraphs that other documents had; long pages in several parts.

    Under a cap the parts are taken in an order that has nothing to do with their subject.
    """
    found = list(_parts(package, lang, seen))
    if max_bytes is not None:
        found.sort(key=lambda part: hashlib.sha256(part[0].encode()).digest())
    for key, text in found:
        size = len(text.encode())
        if max_bytes is not None and size > max_bytes:
            break
        if max_bytes is not None:
            max_bytes -= size
        yield key, text


def _parts(package: Package, lang: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    for key, found in sorted(package.texts.get(lang, [])):
        part: list[str] = []
        size = number = 0
        for text in found:
            mark = hash(text)
            if mark in seen:
                continue
            seen.add(mark)
            part.append(text)
            size += len(text)
            if size >= DOCUMENT_CHARACTERS:
                yield f"{package.name}/{key}~{number}", "\n".join(part)
                part, size, number = [], 0, number + 1
        if part:
            yield f"{package.name}/{key}~{number}", "\n".join(part)
