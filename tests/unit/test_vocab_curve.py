"""How many tokens: the curve against cutting the text at each size, where `auto` stops, and that it changes nothing."""

import json
from pathlib import Path

import pytest

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.config import Options
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.progress import Progress
from langadapt.core.sources import build, merge
from langadapt.recipe.schema import recipe_schema
from langadapt.steps import extend_vocab
from langadapt.vocab import curve as curves
from langadapt.vocab import growing, tokenizer_file
from langadapt.vocab.curve import Curve
from langadapt.vocab.family import Wish, detect
from langadapt.vocab.guard import Guard
from langadapt.vocab.merging import PairLearner
from langadapt.vocab.tokenizer_file import encode_all
from langadapt.vocab.words import count_words
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.pieces import wordpiece_tokenizer
from tests.fixtures.tiny import tiny_tokenizer
from tests.unit.test_vocab_step import ENGLISH, LINES

TEXTS = [f"{LINES[n % 4]} {LINES[n * 7 % 4]} aaaa ňňň {n}" for n in range(60)]


@pytest.fixture(scope="module", params=["byte", "gemma"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tokenizer_file.TokenizerFile:
    folder = tmp_path_factory.mktemp(request.param)
    return tokenizer_file.read(fallback_tokenizer(folder) if request.param == "gemma" else tiny_tokenizer(folder))


def words_and_guard(base: tokenizer_file.TokenizerFile):
    return count_words(base, TEXTS), Guard.of(base, count_words(base, ENGLISH))


def test_the_curve_is_what_cutting_with_each_size_gives(base: tokenizer_file.TokenizerFile):
    words, guard = words_and_guard(base)
    family, wish = detect(base), Wish(size=60, min_count=2)
    letters = family.new_letters(words, guard, wish)
    learner, start = family._learner(words, letters, guard, wish, Progress())
    learner.learn(60)
    curve = start.curve(letters, learner, complete=False)
    assert len(letters) == (0 if family.name == "byte-bpe" else len(letters)) and len(curve.saved) > 40
    types = sorted(words)
    for added in {0, 1, len(letters), len(letters) + 1, 17, 40, len(curve.saved)}:
        merges = family._merges_of(letters[:added], learner.merges[: max(0, added - len(letters))])
        cut = encode_all(base.model_stage(merges), types)
        assert curve.tokens_with(added) == sum(words[word] * len(ids) for word, ids in zip(types, cut, strict=True))
    assert curve.size == sum(len(base.spelling.content(word)) * count for word, count in words.items())


def test_a_pair_that_overlaps_itself_saves_what_it_joins():
    learner = PairLearner([[0, 0, 0]], [7], {0: b"a"}, next_id=1, min_count=1, allowed=lambda *pair: True)
    learner.learn(9)
    assert [merge.count for merge in learner.merges] == [14, 7] and learner.saved == [7, 7]


def small(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    for module in (curves, growing):
        monkeypatch.setattr(module, "NEXT", 10)
        monkeypatch.setattr(module, "LEAST_SAVING", share)
    monkeypatch.setattr(curves, "GRAIN", 5)


@pytest.mark.parametrize(("share", "limit", "why"), [(0.04, 500, "saving"), (0.0001, 25, "limit"), (0.0, 9000, "text")])
def test_auto_gives_what_asking_for_the_size_gives(
    base: tokenizer_file.TokenizerFile, monkeypatch: pytest.MonkeyPatch, share: float, limit: int, why: str
):
    small(monkeypatch, share)
    words, guard = words_and_guard(base)
    auto = detect(base).grow(words, guard, Wish(size=limit, min_count=2, curve=True, auto=True), Progress())
    size = auto.notes["asked"]
    plain = detect(base).grow(words, guard, Wish(size=size, min_count=2, curve=True), Progress())
    assert auto.why == why and plain.why is None and 0 < size <= limit
    assert (auto.merges, auto.tokens, auto.learned, auto.notes) == (
        plain.merges,
        plain.tokens,
        plain.learned,
        plain.notes,
    )
    curve = auto.curve
    assert curve is not None and plain.curve is not None
    common = min(len(curve.saved), len(plain.curve.saved))
    assert common >= size and curve.saved[:common] == plain.curve.saved[:common]
    if why == "saving":
        saving, before = curve.next_saving(size), curve.next_saving(size - 5)
        assert saving is not None and saving < share * curve.tokens_with(size)
        assert before is not None and before >= share * curve.tokens_with(size - 5)


def test_where_a_curve_stops():
    steep = Curve(100_000, 400_000, [10] * 3000 + [0] * 2000, complete=False)
    # at 2,900 the next 1,000 save 1,000 of 71,000; at 3,000 nothing; 0.5 % of about 70,300 is 351
    assert steep.stop(5000) == (3000, "saving")
    assert steep.stop(2000) == (2000, "limit")
    assert Curve(100_000, 1, [10] * 1500, complete=False).stop(2000) is None
    # what counts is the tokens that are left: 84 of 12,000 are enough, of 100,000 they would not be
    assert Curve(100_000, 1, [22] * 4000 + [1, *[0] * 11] * 250, complete=False).stop(9000) is None
    assert Curve(100_000, 1, [10] * 1500, complete=True).stop(9000) == (1500, "text")
    assert Curve(10**9, 1, [10] * 1500, complete=True).stop(9000) == (0, "saving")


def test_points_are_about_thirty_and_say_what_comes_next():
    for most in (1, 7, 40, 999, 8000, 33_000):
        points = Curve(10**6, 4 * 10**6, [9] * most, complete=False).points()
        sizes = [point["added"] for point in points]
        assert sizes == sorted(set(sizes)) and sizes[0] == 0 and sizes[-1] == most and len(sizes) <= 36
    point = points[-1]
    assert point["saved_by_next_1000"] is None and points[0]["saved_by_next_1000"] == 9000
    assert point["bytes_per_token"] == round(4 * 10**6 / (10**6 - 9 * 33_000), 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("curve")
    settings = json.dumps({"model_type": "llama", "vocab_size": 368})
    (tiny_tokenizer(place / "model", size=360) / "config.json").write_text(settings, encoding="utf-8")
    (place / "hu.txt").write_text("".join(f"{TEXTS[n % 60]} {n}\n" for n in range(300)), encoding="utf-8")
    plain = {"min_lang_probability": 0.0, "documents": "line", "near_duplicates": "off"}
    langadapt.prepare(out=place / "hu", text=[place / "hu.txt"], lang="hu", **plain)
    return place


def extend(place: Path, name: str, size: int | str, **more):
    given = {"model": place / "model", "corpus": place / "hu", "size": size, "min_count": 5, **more}
    return langadapt.extend_vocab(out=place / name, **given)


def test_the_step_writes_the_curve_and_says_where_it_stopped(place: Path, monkeypatch: pytest.MonkeyPatch):
    small(monkeypatch, 0.04)
    auto = extend(place, "auto", "auto")
    found = auto.facts["auto"]
    assert found["why"] == "saving" and found["next_1000_save"] < 0.04
    plain = extend(place, "plain", found["size"])
    assert auto.facts["added"] == plain.facts["added"] == found["size"] and auto.facts["missing"] == 0
    for name in ("tokenizer.json", "vocab_map.jsonl", "tokenizer_config.json"):
        assert auto.file(name).read_bytes() == plain.file(name).read_bytes()
    assert auto.file("checks.json").read_bytes() == plain.file("checks.json").read_bytes()
    curve, fixed = (json.loads(artifact.file("curve.json").read_text()) for artifact in (auto, plain))
    assert curve["auto"] == found and "auto" not in fixed
    assert all(
        left["added"] < right["added"] for left, right in zip(curve["points"], curve["points"][1:], strict=False)
    )
    said, share = found["said"], 100 * found["next_1000_save"]
    assert said in verbs.load("extend-vocab").table(auto).notes
    assert said.startswith(f"stopped at {found['size']}: ") and said.endswith(
        f" would save {share:.2f} % of the tokens"
    )


def test_nothing_to_win_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch):
    small(monkeypatch, 0.99)
    with pytest.raises(DataError, match="the first 10 new tokens would save under 99 %") as caught:
        extend(place, "nothing", "auto")
    assert "--size 500" in str(caught.value.hint) and not (place / "nothing").exists()


def test_auto_is_refused_where_it_cannot_work(place: Path):
    with pytest.raises(ConfigError, match="size `auto` does not go with mode `same-size`"):
        extend(place, "same", "auto", mode="same-size")
    settings = json.dumps({"model_type": "bert"})
    (wordpiece_tokenizer(place / "bert", LINES) / "config.json").write_text(settings, encoding="utf-8")
    with pytest.raises(DataError, match="size `auto` works in BPE tokenizers only") as caught:
        extend(place, "bert-out", "auto", model=place / "bert")
    assert "--size auto" in str(caught.value.hint)
    other = extend(place, "bert-plain", 5, model=place / "bert", min_count=1)
    assert "curve.json" not in other.manifest["files"]


def given(text: str) -> Options:
    inputs = ["model=m", "corpus=c"]
    return build(extend_vocab.Config, merge(extend_vocab.Config, assignments=[*inputs, f"size={text}"]), "extend-vocab")


def test_sizes_are_counts_or_auto():
    assert [given(text).size for text in ("auto", "4k", "4000", "4Ki")] == ["auto", 4000, 4000, 4096]
    for text, message in (("0", "from 1 to"), ("2M", "from 1 to"), ("much", "not a count"), ("1.5", "not a whole")):
        with pytest.raises(ConfigError, match=message) as caught:
            given(text)
        assert caught.value.message.count("`size`") == 1
    schema = recipe_schema()["$defs"]["extend-vocab"]["properties"]["size"]
    assert {"const": "auto", "type": "string"} in schema["anyOf"] or "auto" in json.dumps(schema)


def test_the_price_is_that_of_the_limit(place: Path):
    verb = verbs.load("extend-vocab")
    given = {"model": str(place / "model"), "corpus": str(place / "hu"), "max_auto_size": 9000}
    config = verb.config(**given, size="auto")
    price, fixed = (verb.estimate(one, resolve_inputs(one)) for one in (config, verb.config(**given, size=9000)))
    assert price.seconds >= fixed.seconds and price.disk_bytes == fixed.disk_bytes
    assert ("new tokens", "9,000 at most, which the price is for") in price.rows
