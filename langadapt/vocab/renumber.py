"""A tokenizer.json with fewer tokens and other ids: every number in the folder follows.

Ids stand in many places: vocabulary, added tokens, post-processor, padding, and in the settings beside the file. One
that was forgotten makes a special token another one, which nobody notices before the model talks nonsense.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from langadapt.core.io import pretty_json, read_json_object, write_durably
from langadapt.vocab.tokenizer_file import COMPANIONS, NAME, TEMPLATE_FOLDER, TokenizerFile


def in_order(kept: set[int]) -> dict[int, int]:
    """Old id -> new id: the kept ids in their order, from 0 without a gap."""
    return {old: new for new, old in enumerate(sorted(kept))}


def renumbered(base: TokenizerFile, ids: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer.json with only the tokens in `ids` (old id -> new id), all added ones among them.

    A merge stays if its two parts and its result do, in the order of the base.
    """
    pieces = {piece: ids[number] for piece, number in base.pieces.items() if number in ids}
    spec = with_model(base, base.model | _model(base, pieces, ids), pieces)
    if isinstance(spec.get("padding"), dict):
        spec["padding"]["pad_id"] = pieces.get(spec["padding"]["pad_token"], 0)
    return spec


def with_model(base: TokenizerFile, model: Mapping[str, Any], pieces: Mapping[str, int]) -> dict[str, Any]:
    """A copy of tokenizer.json with another model; added tokens and post-processor have the ids of `pieces`."""
    spec: dict[str, Any] = json.loads(json.dumps(base.spec | {"model": model}))
    for token in spec.get("added_tokens") or []:
        token["id"] = pieces[token["content"]]
    spec["added_tokens"] = sorted(spec.get("added_tokens") or [], key=lambda token: int(token["id"]))
    follow(spec.get("post_processor"), pieces)
    return spec


def _model(base: TokenizerFile, pieces: Mapping[str, int], ids: Mapping[int, int]) -> dict[str, Any]:
    """What is another in the model section. `pieces` are all that stay, by new id, added tokens too: the library
    numbers those that the vocabulary does not name from its size."""
    if isinstance(base.model["vocab"], list):
        scores = dict(base.scored)
        listed = [[piece, scores[piece]] for piece in sorted(pieces, key=pieces.__getitem__)]
        return {"vocab": listed, "unk_id": ids[base.model["unk_id"]]}
    vocab = dict(sorted(pieces.items(), key=lambda item: item[1]))
    if "merges" not in base.model:
        return {"vocab": vocab}
    there = base.model["vocab"].keys() & pieces.keys()
    merges = [
        [left, right] for left, right in base.merges if left in there and right in there and left + right in there
    ]
    return {"vocab": vocab, "merges": merges}


def follow(section: Any, pieces: Mapping[str, int]) -> None:
    """Put new numbers into a post-processor: `TemplateProcessing` lists them beside strings, two others have pairs."""
    if not isinstance(section, dict):
        return
    for processor in section.get("processors") or []:
        follow(processor, pieces)
    special = section.get("special_tokens")
    if isinstance(special, dict):
        for entry in special.values():
            entry["ids"] = [pieces[token] for token in entry["tokens"]]
    for key in ("sep", "cls"):
        if isinstance(section.get(key), list):
            section[key] = [section[key][0], pieces[section[key][0]]]


def write_renumbered(
    spec: Mapping[str, Any],
    ids: Mapping[int, int],
    base_folder: Path,
    out: Path,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a tokenizer folder: `spec`, and the base's companions with the new ids; `settings` replace theirs."""
    write_durably(out / NAME, str(Tokenizer.from_str(json.dumps(spec)).to_str(pretty=True)))
    if settings and not (base_folder / "tokenizer_config.json").is_file():
        write_durably(out / "tokenizer_config.json", pretty_json(dict(settings)))
    for name in COMPANIONS:
        path = base_folder / name
        if not path.is_file():
            continue
        if name == "tokenizer_config.json":
            write_durably(out / name, pretty_json(_settings(read_json_object(path), ids) | dict(settings or {})))
        elif name == "added_tokens.json":
            moved = {piece: ids[number] for piece, number in read_json_object(path).items() if number in ids}
            write_durably(out / name, pretty_json(moved))
        else:
            shutil.copyfile(path, out / name)
    if (base_folder / TEMPLATE_FOLDER).is_dir():
        (out / TEMPLATE_FOLDER).mkdir()
        for path in sorted((base_folder / TEMPLATE_FOLDER).glob("*.jinja")):
            shutil.copyfile(path, out / TEMPLATE_FOLDER / path.name)


def _settings(settings: dict[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer_config.json with new ids, of `added_tokens_decoder` and of keys such as `pad_token_id`."""
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        moved = {ids[int(number)]: entry for number, entry in decoder.items() if int(number) in ids}
        settings["added_tokens_decoder"] = {str(number): moved[number] for number in sorted(moved)}
    for key, value in settings.items():
        if key.endswith("_token_id") and isinstance(value, int):
            settings[key] = ids.get(value)
    return settings
