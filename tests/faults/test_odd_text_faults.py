"""Odd names and odd text, and what must not matter.

Rows 26 (file names), 32 (characters, through every tokenizer family), 37 (markup), 38 (wrong language),
44 and 45 (order and surroundings), 46 (checkpoints of other types on a CPU).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core.artifact import open_artifact
from langadapt.core.errors import ConfigError, DataError, LangadaptError, ResourceError
from langadapt.core.io import sha256_file
from langadapt.core.progress import Note
from langadapt.corpus.store import documents
from langadapt.model.load import load_tokenizer
from langadapt.model.spans import spans
from langadapt.model.token_table import TokenTable
from langadapt.vocab import tokenizer_file
from langadapt.vocab.words import count_words
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.tiny import tiny_corpus, tiny_model, tiny_text, tiny_tokenizer

ROOT = Path(__file__).parents[2]
NAMES = {
    "spaces": "two words  twice .txt",
    "a newline": "one\ntwo.txt",
    "a dash": "-n.txt",
    "dashes": "--out.txt",
    "wildcards": "a*[b]?.txt",
    "quotes": '"it\'s" $(touch marker) `id`;.txt',
    "a tab and a bell": "a\tb\x07.txt",
    "letters beyond ASCII": "árvíztűrő-日本-\U0001f642.txt",
    "as long as a name may be": "x" * 240 + ".txt",
}


@pytest.mark.parametrize("kind", NAMES)
def test_an_odd_file_name_works(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an input and as an output, relative to the current folder, as a shell would pass it."""
    monkeypatch.chdir(tmp_path)
    name = NAMES[kind]
    (Path.cwd() / name).write_text("\n\n".join(tiny_text("hu", 12)), encoding="utf-8")
    made = langadapt.prepare(out=f"out {name}"[:200], text=[name], lang="hu", min_lang_probability=0.0)
    assert made.facts["documents"] + made.facts["held_out_documents"] == 12
    open_artifact(made.path).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, made.path.name])


def test_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """No text of UTF-8, longer than a name or a path may be: an error of ours, and nothing is left."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(tiny_text("hu", 12)), encoding="utf-8")
    for out in (tmp_path / ("y" * 300), Path(f"{tmp_path}/{'z' * 200}/" * 30), tmp_path / os.fsdecode(b"\xff\xfe")):
        with pytest.raises(LangadaptError) as refused:
            langadapt.prepare(out=out, text=[text], lang="hu", min_lang_probability=0.0)
        assert refused.value.exit_code in (2, 3, 4), refused.value
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    odd = tmp_path / "folder" / os.fsdecode(b"\xff.txt")
    odd.parent.mkdir()
    odd.write_bytes(text.read_bytes())
    for given in (odd, odd.parent):
        with pytest.raises((ConfigError, DataError)):
            langadapt.prepare(out=tmp_path / "out", text=[given], lang="hu", min_lang_probability=0.0)
    assert not (tmp_path / "out").exists()


ODD = {
    "NUL": "a\x00b",
    "control characters": "a\x01\x07\x1b[31m\x7f\x85b",
    "private use": "a\ue000\uf8ff\U000f0000b",
    "no characters": "a\uffff\ufdd0\U0010ffffb",
    "marks": "a" + "\u0300\u0323" * 500,
    "joiners": "می\u200cخواهم क्\u200dष",
    "right to left": "שלום \u200f\u202eabc\u202c",
    "separators": "a\u2028b\u2029c\x0bd\x0ce\r\nf\rg",
    "specials": "</s><|im_end|><s>[INST]<0x41><unk>▁__label__en [bold]x[/]",
}
FAMILIES = ("byte-bpe", "gemma", "llama", "mistral")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / request.param
    return tiny_tokenizer(folder) if request.param == "byte-bpe" else fallback_tokenizer(folder, style=request.param)


@pytest.mark.parametrize("kind", ODD)
def test_odd_characters_go_through_every_family(family: Path, kind: str) -> None:
    """Every byte belongs to a token or is counted as changed, and a table of tokens spells it."""
    text = ODD[kind]
    tokenizer = load_tokenizer(family)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    found = spans(tokenizer, text)
    assert len(found.ids) == len(found.ends) == len(found.hidden) > 0
    assert list(found.ends) == sorted(found.ends) and found.ends[-1] <= len(text.encode())
    assert found.ends[-1] == len(text.encode()) or found.changed_bytes > 0
    assert count_words(tokenizer_file.read(family), [text]).total() > 0
    table = TokenTable.from_folder(family)
    spelled = b"".join(table.bytes_of(number) for number in table.spell(text.encode()))
    # `▁` in a text is a space for the families that write a space like that, so they cannot spell it
    assert spelled == (b"" if "▁" in text and table.family != "byte-bpe" else text.encode())


def test_strings_of_special_tokens_in_a_corpus_are_text_in_every_family(family: Path) -> None:
    """Row 37: an id that a chat or the end of a text has never comes out of text."""
    tokenizer = load_tokenizer(family)
    specials = tokenizer.all_special_tokens
    tokenizer.backend_tokenizer.encode_special_tokens = True
    text = " and ".join(specials)
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert specials and not set(ids) & set(tokenizer.all_special_ids)


MARKUP = "[bold red]Szöveg[/] :smile: [link=file:///etc/passwd]x[/link] </s> <script>alert(1)</script> __label__en"


def test_markup_in_a_text_is_shown_as_it_stands(tmp_path: Path, tiny: Path) -> None:
    """Row 37: from a corpus through scores and their samples to the terminal and the report."""
    corpus = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": f"{MARKUP} {line}\x1b[31m\x07"}, ensure_ascii=False) for line in tiny_text("hu", 60)]
    corpus.write_text("\n".join(lines), encoding="utf-8")
    made = langadapt.prepare(
        out=tmp_path / "corpus", text=[corpus], lang="hu", min_lang_probability=0.0, held_out_share=0.3,
        near_duplicates="off", boilerplate="keep",
    )  # fmt: skip
    assert made.facts["changed"]["control-character"] > 0
    assert all(document.text.startswith(MARKUP) for document in documents(made.path, "all"))
    scores = langadapt.evaluate(
        out=tmp_path / "scores", base=tiny, adapted=tiny, sets={"held-out": made.path}, set_bytes=600,
        segment_bytes=120, context_bytes=120, bootstrap_samples=100, continuations=1,
    )  # fmt: skip
    report = langadapt.report(out=tmp_path / "report", scores=scores.path)
    page = (report.path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "\x1b" not in page
    command = [sys.executable, "-m", "langadapt", "show", str(scores.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "held-out" in done.stdout and "\x1b" not in done.stdout


def test_text_in_another_language_stops_or_warns(tmp_path: Path) -> None:
    """Row 38: Danish given as Faroese (both made up), told apart by seeds."""
    for lang in ("fo", "da"):
        (tmp_path / f"{lang}.txt").write_text("\n".join(tiny_text(lang, 80)), encoding="utf-8")
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("\n".join(text[:300] for text in tiny_text("da", 60, seed=9)), encoding="utf-8")
    given: dict[str, Any] = {
        "text": [wrong], "lang": "fo", "documents": "line", "near_duplicates": "off",
        "lid_seed": {"fo": tmp_path / "fo.txt", "da": tmp_path / "da.txt"},
    }  # fmt: skip
    with pytest.raises(DataError, match=r"only 0\.\d% of the text is in `fo`.* looks like da") as refused:
        langadapt.prepare(out=tmp_path / "out", **given)
    assert "min_lang_share=0" in str(refused.value.hint)
    said: list[str] = []
    with wrong.open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(text[:300] for text in tiny_text("fo", 30, seed=9)))
    langadapt.prepare(
        out=tmp_path / "all", listener=lambda event: said.append(event.text) if isinstance(event, Note) else None,
        **given,
    )  # fmt: skip
    assert any("does not look like `fo`; it looks like da" in text for text in said)


def hashed(place: Path) -> dict[str, str]:
    return {name: sha256_file(place / name) for name in [*open_artifact(place).manifest["files"], "artifact.json"]}


_PROGRAM = """
import sys
import langadapt
place, model, first, second = sys.argv[1:]
corpus = langadapt.prepare(out=f"{place}/corpus", text=[first, second], lang="hu", min_lang_probability=0.0)
langadapt.extend_vocab(out=f"{place}/tokenizer", model=model, corpus=str(corpus.path), size=20, min_count=2)
"""


def test_order_of_files_surroundings_and_place_give_one_corpus_and_one_tokenizer(tmp_path: Path, tiny: Path) -> None:
    """Rows 44 and 45: two processes, files in another order, other hash seed, locale, zone, threads and folder."""
    for number in range(2):
        tiny_corpus(tmp_path / f"text-{number}", "hu", 80, seed=number)
    texts = [str(tmp_path / f"text-{number}" / "hu.jsonl") for number in range(2)]
    found = []
    for number, (order, zone, locale) in enumerate([(texts, "UTC", "C"), (texts[::-1], "Asia/Tokyo", "C.UTF-8")]):
        place = tmp_path / f"place {number}"
        place.mkdir()
        around = os.environ | {
            "PYTHONHASHSEED": str(number + 1), "TZ": zone, "LC_ALL": locale, "OMP_NUM_THREADS": str(number + 1),
            "TOKENIZERS_PARALLELISM": "true" if number else "false", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, "-c", _PROGRAM, str(place), str(tiny), *order]
        subprocess.run(command, env=around, cwd=place, check=True, timeout=300, capture_output=True)
        found.append((hashed(place / "corpus"), hashed(place / "tokenizer")))
    corpora, tokenizers = zip(*found, strict=True)
    for name in ("documents.jsonl.gz", "held-out.jsonl.gz"):
        assert corpora[0][name] == corpora[1][name]
    for name in ("tokenizer.json", "vocab_map.jsonl", "checks.json"):
        assert tokenizers[0][name] == tokenizers[1][name]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_checkpoint_of_a_smaller_type_works_on_a_cpu(tmp_path: Path, dtype: str) -> None:
    """Row 46: trained and scored in each compute type, and saved in the type of the base."""
    from safetensors.torch import load_file

    base = tiny_model(tmp_path / "base", dtype=dtype)
    text = str(tiny_corpus(tmp_path / "text", "hu", 150))
    data = langadapt.mix(
        out=tmp_path / "data", model=base, corpora={"hu": text}, block_tokens=32, document_separator="<s>"
    )
    for compute in ("fp32", "bf16"):
        made = langadapt.cpt(
            out=tmp_path / compute, model=base, data=data, steps=3, batch_tokens=64, learning_rate=1e-2,
            compute=compute,
        )  # fmt: skip
        after = load_file(made.path / "model.safetensors")
        assert {str(value.dtype) for value in after.values()} == {f"torch.{dtype}"}
        assert all(bool(value.isfinite().all()) for value in after.values())
    scores = langadapt.evaluate(
        out=tmp_path / "scores", base=base, adapted=tmp_path / "fp32", sets={"hu": text}, set_bytes=600,
        segment_bytes=120, context_bytes=120, bootstrap_samples=100, continuations=0,
    )  # fmt: skip
    summary = json.loads((scores.path / "summary.json").read_text(encoding="utf-8"))
    assert summary["languages"]["hu"]["sets"]["hu"]["bits_per_byte"]["adapted"] > 0


def test_a_device_that_is_not_there_is_a_missing_resource(tmp_path: Path, tiny: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    text = str(tiny_corpus(tmp_path / "text", "hu", 30))
    data = langadapt.mix(
        out=tmp_path / "data", model=tiny, corpora={"hu": text}, block_tokens=32, document_separator="<s>"
    )
    with pytest.raises(ResourceError):
        langadapt.cpt(out=tmp_path / "out", model=tiny, data=data, steps=1, batch_tokens=64, device="cuda")
    assert not (tmp_path / "out").exists()
