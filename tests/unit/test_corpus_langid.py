"""Detectors: seeds of the user's own, siblings, and model files that are not whole."""

import random
import struct
from pathlib import Path

import pytest

import langadapt
from langadapt.core.errors import DataError
from langadapt.core.fasttext_file import check_whole
from langadapt.core.progress import Event, Note
from langadapt.corpus import langid
from langadapt.corpus.langid import Detector, accepted_labels
from langadapt.corpus.ngram_langid import EVIDENCE, LONGEST, SMOOTHING, NgramDetector, ngrams
from tests.fixtures.tiny import tiny_text


def seed(lang: str, documents: int = 40) -> str:
    return "\n".join(tiny_text(lang, documents))


def test_siblings_are_a_set_and_more_can_be_named() -> None:
    assert {"no", "nb", "nn"} <= accepted_labels("nb")
    assert accepted_labels("fo") == {"fo"}
    assert accepted_labels("fo", ["is", "nn"]) == {"fo", "is", "no", "nb", "nn"}


def test_seeds_tell_languages_apart() -> None:
    """Made-up languages: lines that were not in the seed text get their language."""
    detector = NgramDetector({lang: seed(lang) for lang in ("fo", "is", "da")}, "fo", accepted_labels("fo"))
    assert detector.trial.share > 0.95
    for lang in ("fo", "is", "da"):
        for text in tiny_text(lang, 20, seed=77):
            verdict = detector.judge(text)
            assert verdict.label == lang
            assert (verdict.probability > 0.5) == (lang == "fo")


def test_the_verdict_is_the_formula() -> None:
    """Naive Bayes with half a count for what was not seen, tempered to the evidence of 30 n-grams; computed slowly."""
    import math
    from collections import Counter

    seeds = {"fo": seed("fo", 8), "da": seed("da", 8)}
    detector = NgramDetector(seeds, "fo", frozenset({"fo"}))
    counts: dict[str, Counter[int]] = {}
    for lang, text in seeds.items():
        plain = " ".join(text.split())
        pieces = [plain[at : at + 400] for at in range(0, len(plain), 400)]
        counts[lang] = Counter(gram for at, piece in enumerate(pieces) if at % 10 for gram in ngrams(piece).tolist())
    line = tiny_text("fo", 1, seed=5)[0][:60]
    grams = ngrams(line).tolist()
    scores = {}
    for lang, found in counts.items():
        total = sum(found.values()) + SMOOTHING * 65536
        mean = sum(math.log((found[gram] + SMOOTHING) / total) for gram in grams) / len(grams)
        scores[lang] = mean * min(EVIDENCE, len(grams))
    expected = 1 / (1 + math.exp(scores["da"] - scores["fo"]))
    assert detector.judge(line).probability == pytest.approx(expected, rel=1e-4)


def test_ngrams_are_all_runs_of_one_to_four_letters_with_a_space_around() -> None:
    assert len(ngrams("abc")) == sum(5 - length + 1 for length in range(1, LONGEST + 1))
    assert sorted(ngrams("ABC")) == sorted(ngrams("abc"))
    assert len(ngrams("")) == 0


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({"is": seed("is"), "da": seed("da")}, "no seed text in `fo`"),
        ({"fo": seed("fo")}, "nothing to tell them from"),
        ({"fo": seed("fo"), "da": "short"}, "at least"),
    ],
)
def test_seeds_that_cannot_work_are_refused(seeds: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        NgramDetector(seeds, "fo", accepted_labels("fo"))


def test_prepare_with_seeds_drops_the_neighbour(tmp_path: Path) -> None:
    for lang in ("fo", "da"):
        (tmp_path / f"{lang}.txt").write_text(seed(lang), encoding="utf-8")
    lines = [text[:300] for text in tiny_text("fo", 60, seed=9)] + [text[:300] for text in tiny_text("da", 20, seed=9)]
    random.Random(1).shuffle(lines)
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            said.append(event.text)

    made = langadapt.prepare(
        out=tmp_path / "out", text=[tmp_path / "text.txt"], lang="fo", documents="line", listener=listen,
        lid_seed={"fo": tmp_path / "fo.txt", "da": tmp_path / "da.txt"}, near_duplicates="off",
    )  # fmt: skip
    assert made.facts["dropped"]["other-language"]["documents"] == 20
    assert made.facts["documents"] + made.facts["held_out_documents"] == 60
    assert any("held-out windows" in sentence for sentence in said)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of zero, so no language is likelier."""
    return model_file(tmp_path_factory.mktemp("fasttext") / "two.bin", [0.0] * 8, [0.0] * 8)


def model_file(path: Path, inputs: list[float], outputs: list[float]) -> Path:
    """A fastText file of two languages, written field by field; each matrix is two rows of four weights."""
    args = struct.pack("<12id", 4, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    entries = [("a", 0), ("b", 0), ("__label__hu", 1), ("__label__en", 1)]
    words = b"".join(name.encode() + b"\0" + struct.pack("<qb", 5, kind) for name, kind in entries)
    dictionary = struct.pack("<iiiqq", 4, 2, 2, 20, -1) + words
    of_words, of_labels = (struct.pack("<qq8f", 2, 4, *weights) for weights in (inputs, outputs))
    path.write_bytes(struct.pack("<ii", 793712314, 12) + args + dictionary + b"\0" + of_words + b"\0" + of_labels)
    return path


def test_a_glance_changes_no_decision(tmp_path: Path) -> None:
    """A bound on the probability is asked for first; what it cannot decide is judged in full, ties included."""
    weights = [4.0, 0, 0, 0, 0, 4.0, 0, 0], [1.0, 0, 0, 0, 0, 1.0, 0, 0]
    detector = Detector(model_file(tmp_path / "two.bin", *weights), "hu")
    own, other, tie = "a a " * 12, "b b " * 12, "a b " * 12
    surely = detector.judge(own)
    assert surely.probability == surely.label_probability > 0.9 and detector.judge(tie).probability < 0.51
    for lines in (
        [own, own],
        [own, other, own],
        [tie, tie],
        [own, tie, tie],
        [other, other],
        [tie, other],
        ["a b"] * 30,
    ):
        text = "\n".join(lines)
        for least in (0.0, 0.4, 0.5, 0.9, 0.99, 1.0):
            exact, quick = detector.judge_lines(text), detector.judge_lines(text, least)
            assert (quick.rest, quick.first_lost, quick.lost) == (exact.rest, exact.first_lost, exact.lost)
            both = (exact.verdict, quick.verdict), (detector.judge_document(text), detector.judge_document(text, least))
            for slow, fast in both:
                assert (slow is None) == (fast is None)
                if slow is not None and fast is not None:
                    assert (slow.label, slow.label_probability) == (fast.label, fast.label_probability)
                    assert (slow.probability < least) == (fast.probability < least)
                    assert fast.probability >= least or fast == slow


def test_siblings_count_where_the_likeliest_label_is_not_enough(tmp_path: Path) -> None:
    """Accepted labels add up: 0.73 of one alone are under 0.9, with its sibling nothing is left to others."""
    model = model_file(tmp_path / "two.bin", [1.0, 0, 0, 0, 0, 1.0, 0, 0], [1.0, 0, 0, 0, 0, 0, 0, 0])
    detector = Detector(model, "hu", ["en"])
    line = "a a " * 12
    assert 0.6 < detector.glance(line).probability < 0.9
    together = detector.judge_texts([line, f"{line}\n{line}"], 0.9)
    alone = detector.judge_lines(f"{line}\n{line}", 0.9).verdict, detector.judge_document(line, 0.9)
    for verdict in (*alone, *(each.verdict for each in together)):
        assert verdict is not None and verdict.probability == pytest.approx(1.0, abs=1e-3)


def test_a_whole_model_of_the_users_own_is_loaded(model: Path) -> None:
    check_whole(model)
    assert Detector(model, "hu").knows and not Detector(model, "fo").knows
    assert Detector(model, "fo", ["en"]).knows


@pytest.mark.parametrize("size", [0, 1, 10, 100, "half", "less four", "less one", "more"])
def test_a_cut_model_is_refused_before_fasttext_sees_it(
    model: Path, tmp_path: Path, size: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault row 18: fastText crashes, hangs, or loads such files without a word."""
    monkeypatch.setattr(langid, "load", lambda path: pytest.fail("fastText was given the file"))
    whole = model.read_bytes()
    named = {"half": len(whole) // 2, "less four": len(whole) - 4, "less one": len(whole) - 1}
    cut = whole + b"\0" if size == "more" else whole[: named.get(str(size), size if isinstance(size, int) else 0)]
    (tmp_path / "cut.bin").write_bytes(cut)
    with pytest.raises(DataError, match=r"damaged fastText model|not a fastText model"):
        Detector(tmp_path / "cut.bin", "hu")


def test_flipped_headers_are_refused_or_loaded(model: Path, tmp_path: Path) -> None:
    """200 flips in the sizes: an error of ours or the file loads; never a crash, a hang, or memory without bound."""
    moments = random.Random(18)
    whole = model.read_bytes()
    for number in range(200):
        bad = bytearray(whole)
        for _ in range(moments.choice([1, 2])):
            bad[moments.randrange(8, len(bad))] ^= 1 << moments.randrange(8)
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes(bad))
        try:
            check_whole(path)
        except DataError:
            continue
        assert path.stat().st_size == len(whole)
