"""Bits per byte against a slow oracle: one token at a time, one document at a time, no batching, no windows."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.model.cuts import cut_points, next_cut
from langadapt.model.score import ScoredText, bits_per_byte, score_texts
from langadapt.model.spans import spans
from tests.fixtures.tiny import tiny_model, tiny_text, tiny_tokenizer

PREFIX = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("score") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def oracle_token_nats(model: Any, ids: list[int]) -> list[float]:
    """-ln p of each id after PREFIX, each from its own forward pass over everything before it."""
    nats = []
    for at, token in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([[PREFIX, *ids[:at]]])).logits[0, -1].double()
        nats.append(float(torch.log(torch.exp(logits).sum()) - logits[token]))
    return nats


def oracle_ends(tokenizer: Any, ids: list[int]) -> list[int]:
    """Bytes spelled by each growing prefix of the ids, read from the printable pieces letter by letter."""
    ends, total = [], 0
    for token in ids:
        total += len(tokenizer.convert_ids_to_tokens(token))  # byte-level: one letter is one byte
        ends.append(total)
    return ends


MIXED = "Ez az öregház, „őszi” 老房子 🎉 café 2024 και τα παιδιά — vége <|endoftext|> nem."


def test_a_document_in_one_pass_equals_the_oracle(model: Any, tokenizer: Any) -> None:
    [score] = score_texts(model, tokenizer, [ScoredText("d", MIXED)], prefix_id=PREFIX)
    ids = tokenizer(MIXED, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert score.nll == pytest.approx(sum(oracle_token_nats(model, ids)), rel=1e-5)
    assert (score.bytes, score.tokens, score.changed_bytes) == (len(MIXED.encode()), len(ids), 0)
    assert bits_per_byte([score]) == pytest.approx(score.nll / math.log(2) / len(MIXED.encode()))


def test_segments_own_the_tokens_that_end_in_them_and_add_up(model: Any, tokenizer: Any) -> None:
    text = MIXED + " " + tiny_text("hu", 1)[0]
    # 27 falls inside a three-byte character on purpose: attribution is by byte, not by character
    ends = (27, 60, 200, len(text.encode()))
    [score] = score_texts(model, tokenizer, [ScoredText("d", text, 10_000, ends)], prefix_id=PREFIX)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    nats, where = oracle_token_nats(model, ids), oracle_ends(tokenizer, ids)
    starts = (0, *ends[:-1])
    for segment, first, last in zip(score.segments, starts, ends, strict=True):
        mine = [nat for nat, end in zip(nats, where, strict=True) if first < end <= last]
        assert segment.tokens == len(mine)
        assert segment.nll == pytest.approx(sum(mine), rel=1e-5)
    assert sum(segment.tokens for segment in score.segments) == len(ids)


def test_a_late_segment_sees_context_bytes_and_no_more(model: Any, tokenizer: Any) -> None:
    text = " ".join(tiny_text("hu", 3))
    content = text.encode()
    ends = cut_points(text, 200)
    [score] = score_texts(model, tokenizer, [ScoredText("d", text, 150, ends)], prefix_id=PREFIX)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    where = oracle_ends(tokenizer, ids)
    begins = [0, *where[:-1]]
    index = len(ends) - 2
    first, last = ends[index - 1], ends[index]
    opening = next_cut(content, first - 150)
    assert content[opening : opening + 1] == b" " and 64 >= opening - (first - 150) >= 0
    window = [at for at in range(len(ids)) if begins[at] >= opening and where[at] <= last]
    nats = oracle_token_nats(model, [ids[at] for at in window])
    wanted = sum(nat for at, nat in zip(window, nats, strict=True) if where[at] > first)
    assert score.segments[index].nll == pytest.approx(wanted, rel=1e-5)


def test_the_result_does_not_depend_on_the_batch_or_on_the_neighbours(model: Any, tokenizer: Any) -> None:
    texts = [
        ScoredText.cut(str(at), text, segment_bytes=150, context_bytes=100)
        for at, text in enumerate(tiny_text("hu", 8))
    ]
    texts += [ScoredText("short", "a"), ScoredText("empty", "")]
    big = score_texts(model, tokenizer, texts, prefix_id=PREFIX, batch_tokens=4096)
    small = score_texts(model, tokenizer, texts, prefix_id=PREFIX, batch_tokens=1)
    alone = [score_texts(model, tokenizer, [text], prefix_id=PREFIX)[0] for text in reversed(texts)][::-1]
    for one, two, three in zip(big, small, alone, strict=True):
        assert one.id == two.id == three.id
        assert one.nll == pytest.approx(two.nll, rel=1e-6) == pytest.approx(three.nll, rel=1e-6)
    assert big[-1].segments == ()


def test_the_same_call_twice_gives_the_same_bits(model: Any, tokenizer: Any) -> None:
    texts = [
        ScoredText.cut(str(at), text, segment_bytes=100, context_bytes=100)
        for at, text in enumerate(tiny_text("hu", 5))
    ]
    first = score_texts(model, tokenizer, texts, prefix_id=PREFIX)
    assert first == score_texts(model, tokenizer, texts, prefix_id=PREFIX)


def test_the_prefix_matters_and_is_not_scored(model: Any, tokenizer: Any) -> None:
    text = [ScoredText("d", "The old house stands by the river")]
    one, other = (score_texts(model, tokenizer, text, prefix_id=prefix)[0] for prefix in (0, 1))
    assert one.tokens == other.tokens and one.nll != other.nll


def test_bf16_is_near_fp32_and_leaves_the_model_as_it_was(model: Any, tokenizer: Any) -> None:
    texts = [
        ScoredText.cut(str(at), text, segment_bytes=100, context_bytes=100)
        for at, text in enumerate(tiny_text("hu", 3))
    ]
    model.train()
    exact = bits_per_byte(score_texts(model, tokenizer, texts, prefix_id=PREFIX))
    rough = bits_per_byte(score_texts(model, tokenizer, texts, prefix_id=PREFIX, compute="bf16"))
    assert model.training
    model.eval()
    assert exact != rough and rough == pytest.approx(exact, rel=0.01)


def test_padded_rows_and_other_architectures(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for arch in ("gpt2", "gemma2"):
        folder = tiny_model(tmp_path / arch, arch=arch, padded_rows=24)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        [score] = score_texts(model, tokenizer, [ScoredText("d", MIXED)], prefix_id=PREFIX)
        ids = tokenizer(MIXED, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert score.nll == pytest.approx(sum(oracle_token_nats(model, ids)), rel=1e-5)


def test_a_window_longer_than_the_model_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="512 positions"):
        score_texts(model, tokenizer, [ScoredText("long", "z" * 3000, 5000)], prefix_id=PREFIX)


def test_progress_counts_bytes(model: Any, tokenizer: Any) -> None:
    task = Progress().start("score", unit="bytes")
    texts = [
        ScoredText.cut(str(at), text, segment_bytes=100, context_bytes=100)
        for at, text in enumerate(tiny_text("hu", 3))
    ]
    scores = score_texts(model, tokenizer, texts, prefix_id=PREFIX, progress=task)
    assert task.done == sum(score.bytes for score in scores)


def test_no_bytes_is_an_error_not_a_zero() -> None:
    with pytest.raises(DataError):
        bits_per_byte([])


def normalising_tokenizer() -> Any:
    """Lower-cases, and knows two words only: everything else is unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "house": 2}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def test_a_normalising_tokenizer_falls_back_to_offsets_and_owns_up() -> None:
    placed = spans(normalising_tokenizer(), "The house öreg the")
    assert placed.ids == (1, 2, 0, 1)
    assert placed.ends == (3, 9, 15, 19)
    assert placed.hidden == (0, 0, 5, 0)
    assert placed.changed_bytes == 3 + 5  # "The" was lower-cased, "öreg" is not spelled at all


def test_unknown_bytes_cost_eight_bits_each(model: Any) -> None:
    tokenizer = normalising_tokenizer()
    [score] = score_texts(model, tokenizer, [ScoredText("d", "the öreg")], prefix_id=1)
    with torch.no_grad():
        logits = model(torch.tensor([[1, 1]])).logits[0].double()
    nats = -torch.log_softmax(logits, 1)[[0, 1], [1, 0]].sum().item()
    assert score.segments[0].unknown_bytes == 5
    assert score.nll == pytest.approx(nats + 5 * 8 * math.log(2), rel=1e-6)


def test_metaspace_tokenizers_keep_exact_bytes() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"▁": 0, "▁b": 1, "c": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    inner = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    placed = spans(PreTrainedTokenizerFast(tokenizer_object=inner), "cőc")
    assert placed.changed_bytes == 0 and placed.ends == (0, 1, 2, 3, 4)


def test_cuts_stand_before_spaces_and_never_inside_a_character() -> None:
    text = "egy kettő három " * 20
    content = text.encode()
    for end in cut_points(text, 60)[:-1]:
        assert content[end : end + 1] == b" "
    thai = "ภาษาไทยไม่มีช่องว่าง" * 30
    assert all(thai.encode()[:end].decode() for end in cut_points(thai, 100))
    assert cut_points("", 10) == () and cut_points("ab", 10) == (2,)
    sizes = [b - a for a, b in zip((0, *cut_points(text, 60)), cut_points(text, 60), strict=False)]
    assert min(sizes) > 40 and max(sizes) < 80


def test_tokenizer_only_folder_is_enough_for_spans(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tok"))
    placed = spans(tokenizer, MIXED)
    assert placed.ends[-1] == len(MIXED.encode()) and placed.changed_bytes == 0
    assert 0 not in placed.ids  # the text's "<|endoftext|>" is text
