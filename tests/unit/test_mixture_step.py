"""The verb `mix` on a small model: what it packs, chooses, predicts and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core import verb
from langadapt.core.artifact import Artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, resolve_inputs
from langadapt.core.io import read_json_lines
from langadapt.core.validate import validate
from langadapt.mixture.ledger import ledger
from langadapt.mixture.separator import score_separators
from langadapt.mixture.stream import Stream
from tests.fixtures.tiny import tiny_text


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    return {
        "hu": write(folder / "hu.jsonl", tiny_text("hu", 150)),
        "en": write(folder / "en.jsonl", tiny_text("en", 400)),
        "fi": write(folder / "fi.jsonl", tiny_text("fi", 120)),
    }


def config(**values: Any) -> Any:
    return validate(verb.load("mix").config, values)


def mix(out: Path, **values: Any) -> Artifact:
    return verb.perform(verb.load("mix"), config(**values), out).artifact


@pytest.fixture(scope="module")
def blended(tmp_path_factory: pytest.TempPathFactory, tiny: Path, texts: dict[str, str]) -> Artifact:
    return mix(
        tmp_path_factory.mktemp("mix") / "data",
        model=str(tiny),
        corpora={"hu": texts["hu"], "en": texts["en"]},
        probes={"fi": texts["fi"]},
        replay={"en": 0.2},
        block_tokens=64,
    )


def decoded_bytes(stream: Stream, tokenizer: Any, positions: int) -> dict[str, int]:
    """Bytes of text in the first blocks, counted by decoding them."""
    found: dict[str, int] = {}
    for position in range(positions):
        block = stream.block(position)
        ids = [token for offset, token in enumerate(block.tokens) if offset not in block.starts]
        found[block.source] = found.get(block.source, 0) + len(tokenizer.decode(ids, skip_special_tokens=False))
    return found


def test_the_stream_holds_the_wanted_share_of_text(blended: Artifact, tiny: Path) -> None:
    from langadapt.model.load import load_tokenizer

    stream = Stream.open(blended.path)
    amounts = decoded_bytes(stream, load_tokenizer(tiny), 600)
    # whole epochs of neither source: a few blocks differ in how much text they hold
    assert amounts["en"] / sum(amounts.values()) == pytest.approx(0.2, abs=0.01)
    assert ledger(stream.plan, 600)["balance_tokens"] == 0
    facts = blended.facts["sources"]
    assert {name: (entry["role"], entry["lang"]) for name, entry in facts.items()} == {
        "hu": ("target", "hu"),
        "en": ("replay", "en"),
    }
    assert facts["en"]["share_bytes"] == pytest.approx(0.2, abs=0.001)
    # the default cap: four passes over the target at 80 : 20
    assert facts["en"]["bytes"] <= facts["hu"]["bytes"]


def test_the_chosen_separator_scores_best(blended: Artifact, tiny: Path) -> None:
    from langadapt.model.load import load_tokenizer

    scores = blended.facts["separator_scores"]
    assert set(scores) == {"<s>", "</s>", "<|endoftext|>"}
    best = min(scores, key=scores.__getitem__)
    assert blended.facts["document_separator"] == load_tokenizer(tiny).convert_tokens_to_ids(best)
    block = Stream.open(blended.path).block(0)
    assert all(block.tokens[at] == blended.facts["document_separator"] for at in block.starts)


def test_separators_are_scored_in_front_of_the_text(tiny: Path) -> None:
    """Bits per byte by a plain forward pass over [separator] text."""
    import math

    import torch

    from langadapt.core.progress import Progress
    from langadapt.mixture.passages import Passage
    from langadapt.model.load import load_model, load_tokenizer

    tokenizer, model, text = load_tokenizer(tiny), load_model(tiny), "The old house stands by the river."
    scores = score_separators(tiny, tokenizer, {"<s>": 1, "</s>": 2}, [Passage("a", text)], Progress())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for token, number in (("<s>", 1), ("</s>", 2)):
        with torch.no_grad():
            logits = model(torch.tensor([[number, *ids]])).logits[0].log_softmax(-1)
        nats = -sum(float(logits[at, token_id]) for at, token_id in enumerate(ids))
        assert scores[token] == pytest.approx(nats / math.log(2) / len(text), abs=1e-4)


def test_probes_are_held_out_and_small(blended: Artifact, texts: dict[str, str]) -> None:
    lines = list(read_json_lines(blended.path / "probes.jsonl"))
    assert {line["name"] for line in lines} == {"hu", "en", "fi"}
    assert {line["lang"] for line in lines} == {"hu", "en", "fi"}
    for name in ("hu", "en", "fi"):
        mine = [line["text"] for line in lines if line["name"] == name]
        assert 0 < sum(len(text.encode()) for text in mine) <= 4000
        everything = Path(texts[name]).read_text(encoding="utf-8")
        assert all(text.strip() in everything for text in mine)
    assert "fi" not in blended.facts["sources"]


def test_special_strings_in_the_text_are_text(tmp_path: Path, tiny: Path) -> None:
    from langadapt.model.load import load_tokenizer

    text = "He wrote </s> and <|endoftext|> and <pad> in one line."
    artifact = mix(
        tmp_path / "data",
        model=str(tiny),
        corpora={"hu": write(tmp_path / "a.jsonl", [text])},
        block_tokens=16,
        document_separator="<|endoftext|>",
    )
    shards = Stream.open(artifact.path).shards[0]
    ids = shards.read(0, shards.tokens).tolist()
    assert ids[0] == 0 and min(ids[1:]) > 3
    assert load_tokenizer(tiny).decode(ids[1:]) == text


@pytest.mark.parametrize(("given", "number"), [("</s>", 2), ("3", 3)])
def test_a_separator_can_be_given(tmp_path: Path, tiny: Path, texts: dict[str, str], given: str, number: int) -> None:
    artifact = mix(tmp_path / "d", model=str(tiny), corpora={"hu": texts["hu"]}, document_separator=given)
    assert artifact.facts["document_separator"] == number
    assert artifact.facts["separator_scores"] == {}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"document_separator": "<nothing>"}, "no token `<nothing>`"),
    ({"document_separator": "99999"}, "no token `99999`"),
    ({"replay": {"fr": 0.2}}, "not among the corpora"),
    ({"max_bytes": {"fr": 10}}, "not among the corpora"),
    ({"probes": {"hu": "{hu}"}}, "both trained on and a probe"),
    ({"corpora": {"../hu": "{hu}"}}, "cannot name a corpus"),
    ({"corpora": {"plan.json": "{hu}"}}, "cannot name a corpus"),
    ({"block_tokens": 4}, "at least 16"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_what_cannot_be_mixed_is_refused(
    tmp_path: Path, tiny: Path, texts: dict[str, str], values: dict[str, Any], words: str
) -> None:
    filled = json.loads(json.dumps({"corpora": {"hu": "{hu}"}, **values}).replace("{hu}", texts["hu"]))
    with pytest.raises(ConfigError, match=words):
        mix(tmp_path / "data", model=str(tiny), **filled)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("made", ["mix", "dry run"])
def test_blocks_longer_than_the_positions_of_the_model_are_refused(
    tmp_path: Path, tiny: Path, texts: dict[str, str], made: str
) -> None:
    values = config(model=str(tiny), corpora={"hu": texts["hu"]}, block_tokens=513, document_separator="0")
    with pytest.raises(DataError, match=r"a block has 513 tokens, .* has 512 positions") as caught:
        if made == "mix":
            verb.perform(verb.load("mix"), values, tmp_path / "data")
        else:
            verb.load("mix").estimate(values, resolve_inputs(values))
    assert caught.value.hint == "give shorter blocks: --block-tokens 512"


def test_more_than_four_probes_are_left_out_with_a_warning(tmp_path: Path, tiny: Path, texts: dict[str, str]) -> None:
    loaded = verb.load("mix")
    values = config(
        model=str(tiny),
        corpora={"hu": texts["hu"]},
        probes=dict.fromkeys(("a", "b", "c", "d"), texts["fi"]),
        document_separator="0",
    )
    result = verb.perform(loaded, values, tmp_path / "data")
    assert set(result.artifact.facts["probe_bytes"]) == {"hu", "a", "b", "c"}
    assert any("will not watch d" in warning for warning in result.warnings)


@pytest.mark.parametrize("prepared", [False, True])
def test_the_same_text_as_target_and_as_replay_warns(
    tmp_path: Path, tiny: Path, texts: dict[str, str], prepared: bool
) -> None:
    """Given twice as a file, or prepared twice under two languages, or as a file and prepared."""
    corpora = {"hu": texts["hu"], "en": texts["hu"], "fi": texts["fi"]}
    if prepared:
        for lang in ("hu", "en"):
            langadapt.prepare(
                out=tmp_path / lang, text=[texts["hu"]], lang=lang, min_lang_probability=0.0, boilerplate="keep"
            )
        corpora |= {"hu": str(tmp_path / "hu"), "en": str(tmp_path / "en"), "file": texts["hu"]}
    values = config(model=str(tiny), corpora=corpora, replay={"en": 0.2}, document_separator="0", block_tokens=64)
    loaded = verb.load("mix")
    warnings = verb.perform(loaded, values, tmp_path / "data").warnings
    assert any("`hu` and `en` are made from the same text: replaying the target" in said for said in warnings)
    assert any("read twice" in said for said in warnings) == prepared and not any("`fi`" in said for said in warnings)
    assert dict(loaded.estimate(values, resolve_inputs(values)).rows)["same text"]


def test_different_texts_are_not_warned_about(blended: Artifact, tiny: Path, texts: dict[str, str]) -> None:
    values = config(model=str(tiny), corpora={"hu": texts["hu"], "en": texts["en"]}, replay={"en": 0.2})
    assert "same text" not in dict(verb.load("mix").estimate(values, resolve_inputs(values)).rows)


def test_the_price_agrees_with_what_happens(blended: Artifact, tiny: Path, texts: dict[str, str]) -> None:
    values = config(
        model=str(tiny), corpora={"hu": texts["hu"], "en": texts["en"]}, replay={"en": 0.2}, block_tokens=64
    )
    price = verb.load("mix").estimate(values, resolve_inputs(values))
    predicted: Any = price.facts["sources"]
    for name, entry in blended.facts["sources"].items():
        assert set(predicted[name]) == set(entry)
        for key in ("tokens", "bytes", "blocks", "documents"):
            # plain files: their size on disk holds JSON and held-out text
            assert predicted[name][key] == pytest.approx(entry[key], rel=0.1)
        assert predicted[name]["share_tokens"] == pytest.approx(entry["share_tokens"], abs=0.02)
    assert price.facts["vocabulary"] == blended.facts["vocabulary"]


def test_the_price_of_inputs_that_do_not_exist_comes_from_facts() -> None:
    def later(facts: dict[str, object]) -> Input:
        return Input("later", Path("nowhere"), None, "", facts, exists=False)

    values = config(model="m", corpora={"hu": "a", "en": "b"}, replay={"en": 0.2}, block_tokens=100)
    hu = {"bytes": 3_500_000, "documents": 1000, "lang": "hu"}
    en = {"bytes": 90_000_000, "documents": 9000, "lang": "en"}
    inputs: Any = {
        "model": later({"rows": 70_000, "parameters": 10**8}),
        "corpora": {"hu": later(hu), "en": later(en)},
        "probes": {},
    }
    price = verb.load("mix").estimate(values, inputs)
    sources: Any = price.facts["sources"]
    # 3.5 bytes a token and a separator per document
    assert sources["hu"]["tokens"] == 1_000_000 + 1000
    assert sources["hu"]["blocks"] == 10_010
    # four passes at 80 : 20 use as much English as there is Hungarian
    assert sources["en"]["bytes"] == 3_500_000
    assert price.disk_bytes == 2 * 4 * (sources["hu"]["tokens"] + sources["en"]["tokens"])
    assert dict(price.rows)["assumed"].endswith("for hu, en")
    facts = {"rows": 70_000, "parameters": 10**8, "expected_bytes_per_token": {"hu": 5.0}}
    known: Any = verb.load("mix").estimate(values, inputs | {"model": later(facts)})
    assert known.facts["sources"]["hu"]["tokens"] == 700_000 + 1000
    assert dict(known.rows)["assumed"].endswith("for en")


def test_the_table_shows_both_shares(blended: Artifact) -> None:
    shown = verb.load("mix").table
    assert shown is not None
    result = shown(blended)
    by_name = {row[0]: dict(zip(result.columns, row, strict=True)) for row in result.rows}
    assert by_name["en"]["of bytes"] == "20.0%"
    assert by_name["hu"]["tokens"] == f"{blended.facts['sources']['hu']['tokens']:,}"
    assert any("<|endoftext|>" in note for note in result.notes)
