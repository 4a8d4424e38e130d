"""Many texts at once must get from the table what fastText says of each alone."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest

from langadapt.corpus import fasttext_table
from langadapt.corpus.fasttext_table import HashTable, Table
from langadapt.corpus.langid import Detector, Lines
from tests.fixtures.tiny import tiny_text

LANGS = ("hu", "en", "el", "th", "fi", "de", "sw")
ODD = (
    "",
    "   ",
    "a",
    "alma </s> körte",
    "alma </s>",
    "__label__hu alma",
    "a\0b c",
    "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน",
    "𐍈𐌰𐌹 😀",
    "ΑΒΓ γκρι Ёж ёж",
    "x" * 300,
)


def texts(seed: int, count: int = 12) -> list[tuple[str, str]]:
    return [(lang, text[:150]) for lang in LANGS for text in tiny_text(lang, count, seed=seed)]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("table")

    def make(name: str, quantised: bool = False, **more: Any) -> Path:
        path = folder / name
        if not path.exists():
            lines = [f"__label__{lang} {text}" for lang, text in texts(1, 40)]
            random.Random(1).shuffle(lines)
            (folder / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
            given = {"loss": "hs", "dim": 8, "minn": 2, "maxn": 4, "bucket": 3000, "epoch": 20, "lr": 0.3, **more}
            model = fasttext.train_supervised(str(folder / "text"), thread=1, verbose=0, **given)
            if quantised:
                model.quantize(cutoff=1500)
            model.save_model(str(path))
        return path

    return make


@pytest.mark.parametrize("given", [{}, {"quantised": True}, {"minn": 1, "maxn": 5}])
def test_shares_are_those_of_fasttext(train: Callable[..., Path], given: dict[str, Any]) -> None:
    detector = Detector(train(f"{sorted(given)}.bin", **given), "hu", ["sw"])
    assert detector._table is not None
    pieces = [text for _, text in texts(2)] + list(ODD)
    found = detector.judge_pieces(pieces)
    assert len({verdict.label for verdict in found}) >= 4
    for piece, verdict in zip(pieces, found, strict=True):
        expected = detector.judge(piece.split("</s>")[0])
        assert verdict.label == expected.label, piece
        assert verdict[1:] == pytest.approx(expected[1:], abs=2e-5), piece


def test_neighbours_and_memory_change_no_bit(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, together, in another order, and with words forgotten all the time: exactly the same shares."""
    path = train("[].bin")
    pieces = [text for _, text in texts(3)] + list(ODD)
    together = Detector(path, "hu").judge_pieces(pieces)
    detector = Detector(path, "hu")
    assert [detector.judge_pieces([piece])[0] for piece in pieces] == together
    order = np.random.default_rng(1).permutation(len(pieces)).tolist()
    detector = Detector(path, "hu")
    monkeypatch.setattr(fasttext_table, "MOST_WORDS", 10)
    for at in range(0, len(order), 7):
        part = order[at : at + 7]
        assert detector.judge_pieces([pieces[number] for number in part]) == [together[number] for number in part]


def test_more_words_than_there_was_room_for(train: Callable[..., Path]) -> None:
    """Room for words grows while they come; what was learnt before stays what it was."""
    detector = Detector(train("[].bin"), "hu")
    moments = random.Random(4)
    words = ["".join(moments.choices("abcdefghijklmnoprstuvzáéűő", k=moments.randint(2, 12))) for _ in range(4000)]
    pieces = [" ".join(words[at : at + 8]) for at in range(0, len(words), 8)]
    for _ in range(2):
        found = [detector.judge_pieces(pieces[at : at + 90]) for at in range(0, len(pieces), 90)]
        for piece, verdict in zip(pieces, [each for part in found for each in part], strict=True):
            assert verdict[1:] == pytest.approx(detector.judge(piece)[1:], abs=2e-5)


@pytest.mark.parametrize("given", [{"loss": "softmax"}, {"wordNgrams": 2}, {"minn": 0, "maxn": 0}, {"bucket": 600_000}])
def test_other_models_are_left_to_fasttext(train: Callable[..., Path], given: dict[str, Any]) -> None:
    detector = Detector(train(f"{given}.bin", **given), "hu")
    assert detector._table is None
    pieces = [text for _, text in texts(4, 2)]
    assert detector.judge_pieces(pieces) == [detector.judge(piece) for piece in pieces]


def test_a_table_that_is_wrong_is_not_used(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext_table, "_FNV_PRIME", np.uint32(16777621))
    assert Detector(train("[].bin"), "hu")._table is None
    monkeypatch.undo()
    assert isinstance(Detector(train("[].bin"), "hu")._table, Table)


def test_a_hash_table_is_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters full, with hashes that want the same slots."""
    monkeypatch.setattr(fasttext_table, "_SLOTS", 64)
    moments = np.random.default_rng(3)
    hashes = np.unique(
        moments.integers(1, 40, 200, dtype=np.uint64) + (moments.integers(0, 9, 200, dtype=np.uint64) << 6)
    )
    moments.shuffle(hashes)
    table, known = HashTable(), dict[int, int]()
    for at in range(0, 48, 7):
        part = hashes[at : min(at + 7, 48)]
        assert table.find(part).tolist() == [-1] * len(part)
        table.add(part)
        known |= {value: at + number for number, value in enumerate(part.tolist())}
        assert table.find(hashes).tolist() == [known.get(value, -1) for value in hashes.tolist()]
    assert len(table) == 48
    with pytest.raises(ValueError, match="more than 48"):
        table.add(hashes[48:49])


@pytest.mark.parametrize("enough", [0.5, float("inf")])
def test_documents_together_get_what_each_gets_alone(train: Callable[..., Path], enough: float) -> None:
    moments = random.Random(5)
    lines = [text for _, text in texts(6)] + ["short", ""]
    documents = ["\n".join(moments.sample(lines, moments.choice([1, 2, 5, 9]))) for _ in range(60)]
    documents += ["short\n" * 30, tiny_text("hu", 1)[0] * 20, "x"]
    with_table, without = (Detector(train("[].bin"), "hu") for _ in range(2))
    without._table = None
    found = with_table.judge_texts(documents, enough)
    assert any(each.lost for each in found) and any(each.verdict is None for each in found)
    for document, each in zip(documents, found, strict=True):
        alone = without.judge_lines(document, enough) if "\n" in document else None
        alone = alone or Lines(document, without.judge_document(document, enough), "", {})
        assert (each.rest, each.first_lost, each.lost) == (alone.rest, alone.first_lost, alone.lost)
        assert (each.verdict is None) == (alone.verdict is None)
        if each.verdict is not None and alone.verdict is not None:
            assert each.verdict.label == alone.verdict.label
            assert (each.verdict.probability < 0.5) == (alone.verdict.probability < 0.5)
