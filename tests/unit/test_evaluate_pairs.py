"""Models that share less than usual: other ids for the same tokens, tokenizers of two families, no common separator."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core.errors import ConfigError
from langadapt.core.io import read_json_lines, read_json_object
from langadapt.core.progress import Note
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.score import ScoredText, score_texts
from langadapt.model.token_keys import token_keys
from langadapt.model.token_table import TokenTable
from langadapt.vocab.metrics import same_ids_share, same_tokens_share
from tests.fixtures.fallback import tiny_gemma3
from tests.fixtures.families import FAMILIES, family_tokenizer
from tests.fixtures.tiny import tiny_corpus, tiny_model

LINES = ["The old house stands by the river.", "они знают 1848", "Das ist schön, größer.", "the water was high"]


def renumber(folder: Path) -> None:
    """Give every token another id: the first becomes the last. The text is cut as before."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    size = len(vocabulary)
    if isinstance(vocabulary, list):
        spec["model"]["vocab"] = vocabulary[::-1]
        spec["model"]["unk_id"] = size - 1 - spec["model"]["unk_id"]
    else:
        spec["model"]["vocab"] = {piece: size - 1 - id for piece, id in vocabulary.items()}
    for token in spec["added_tokens"]:
        token["id"] = size - 1 - token["id"]
    for name, entry in ((spec.get("post_processor") or {}).get("special_tokens") or {}).items():
        entry["ids"] = [size - 1 - id for id in entry["ids"]]
        assert name in entry["tokens"]
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_line_is_the_same_if_its_tokens_are_whatever_their_ids(family: str, tmp_path: Path) -> None:
    base = family_tokenizer(tmp_path / "base", family)
    shutil.copytree(base, tmp_path / "new")
    renumber(tmp_path / "new")
    tables = [TokenTable.from_folder(tmp_path / name) for name in ("base", "new")]
    tokenizers = [load_tokenizer(tmp_path / name) for name in ("base", "new")]
    keys = token_keys(tables[0], tables[1])
    assert same_ids_share(*tokenizers, LINES) == 0.0, "the mistake that this is about"
    assert same_tokens_share(*tokenizers, LINES, *keys) == 1.0
    assert keys[0] == keys[1][::-1]


def test_families_differ_where_their_tokens_do(tmp_path: Path) -> None:
    """`Ġthe` and `▁the` are one token; at the beginning of a text only one of the two has a space."""
    folders = [family_tokenizer(tmp_path / family, family) for family in ("byte-bpe", "gemma")]
    keys = token_keys(*map(TokenTable.from_folder, folders))
    tokenizers = list(map(load_tokenizer, folders))
    for line in (*LINES, "a", "\n"):
        both = zip(keys, tokenizers, strict=True)
        cuts = [[own[id] for id in tokenizer(line, add_special_tokens=False)["input_ids"]] for own, tokenizer in both]
        assert same_tokens_share(*tokenizers, [line], *keys) == float(cuts[0] == cuts[1])
    assert same_tokens_share(*tokenizers, ["a"], *keys) == 1.0
    assert same_tokens_share(*tokenizers, [], *keys) is None


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    tiny_model(folder / "base")
    tiny_gemma3(folder / "gemma")
    shutil.copytree(folder / "base", folder / "moved")
    renumber(folder / "moved")
    for lang in ("hu", "en"):
        tiny_corpus(folder, lang, 300)
    return folder


def evaluate(work: Path, out: Path, said: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"sets": {lang: str(work / f"{lang}.jsonl") for lang in ("hu", "en")}, "compute": "fp32"}
    given |= {"segment_bytes": 100, "context_bytes": 100, "set_bytes": 600, "bootstrap_samples": 100}
    given |= {"base": str(work / "base"), "continuations": 1} | changes
    heard = said if said is not None else []
    done = langadapt.evaluate(
        out=out, listener=lambda event: heard.append(event.text) if isinstance(event, Note) else None, **given
    )
    return read_json_object(done.file("summary.json")) | {"folder": str(done.path)}


def test_tokens_with_other_ids_count_as_kept(work: Path, tmp_path: Path) -> None:
    found = evaluate(work, tmp_path / "out", adapted=str(work / "moved"), document_separator="<s>", continuations=0)
    assert found["languages"]["en"]["held_out_lines_same_ids"] == 1.0
    assert found["settings"]["document_separator"] == "<s>"


def test_models_without_a_common_separator_get_their_own(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are those of each model behind its own best boundary, on the same bytes."""
    said: list[str] = []
    values = {"<s>": 0.9, "</s>": 0.2, "<|endoftext|>": 0.9, "<bos>": 0.1, "<eos>": 0.5}
    monkeypatch.setattr(
        "langadapt.mixture.separator.score_separators",
        lambda folder, tokenizer, known, *rest: {token: values[token] for token in known},
    )
    found = evaluate(work, tmp_path / "out", said, adapted=str(work / "gemma"), control=str(work / "base"))
    used = {role: found["models"][role]["document_separator"] for role in ("base", "adapted", "control")}
    assert used == {"base": "</s>", "adapted": "<bos>", "control": "</s>"}
    text = f"{used['base']} (base), {used['adapted']} (adapted), {used['base']} (control)"
    assert found["settings"]["document_separator"] == text and any(text in note for note in said)
    rows = list(read_json_lines(Path(found["folder"]) / "segments.jsonl"))
    assert all(set(row["nll"]) == set(used) and row["nll"]["base"] == row["nll"]["control"] for row in rows)
    from langadapt.corpus.store import documents

    texts = {document.id: document.text for document in documents(work / "hu.jsonl", "held-out")}
    first = next(row for row in rows if row["set"] == "hu" and row["start"] == 0)
    part = texts[first["document"]].encode()[: first["bytes"]].decode()
    for role, name in (("base", "base"), ("adapted", "gemma")):
        tokenizer = load_tokenizer(work / name)
        whole = ScoredText("x", texts[first["document"]], 100, (len(part.encode()),))
        (score,) = score_texts(load_model(work / name), tokenizer, [whole], prefix_id=tokenizer.get_vocab()[used[role]])
        assert score.nll == pytest.approx(first["nll"][role], abs=1e-3)


def test_a_separator_that_only_one_model_has_is_an_error_with_a_way_out(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the adapted model has no token `<s>`") as caught:
        evaluate(work, tmp_path / "out", adapted=str(work / "gemma"), document_separator="<s>")
    assert "leave document_separator out" in (caught.value.hint or "")
