"""Bits per byte against lm-eval's rolling log-likelihood, on the real model and short held-out documents.

Needs `pip install lm-eval[hf]` in the environment (it is no dependency) and the files of `make assets`.
"""

import math
import os
from pathlib import Path

import pytest

from langadapt.corpus.store import documents
from langadapt.model.load import load_model, load_tokenizer, resolve
from langadapt.model.score import ScoredText, bits_per_byte, score_texts

ASSETS = Path(os.environ.get("LANGADAPT_ASSETS", "work/assets-hu")).resolve()
MODEL = Path(os.environ.get("LANGADAPT_MODEL", ASSETS / "model" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
PREFIX = 0  # `<|endoftext|>`, the same for both
COUNT = 6

pytestmark = [pytest.mark.real, pytest.mark.skipif(not ASSETS.is_dir(), reason="run `make assets` first")]


@pytest.mark.parametrize("lang", ["hu", "en"])
@pytest.mark.timeout(900)
def test_agrees_with_lm_eval_to_1e_4_bits_per_byte(lang: str) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder = resolve(str(MODEL))
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    texts: list[str] = []
    for document in documents(ASSETS / "text" / f"{lang}.jsonl", "held-out"):
        if 150 < len(tokenizer(document.text)["input_ids"]) < 1000:
            texts.append(document.text)
        if len(texts) == COUNT:
            break
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu", prefix_token_id=PREFIX)
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    logs = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    # whole documents as context, in segments: cutting must not change the sum
    scored = [ScoredText.cut(str(at), text, context_bytes=10**6) for at, text in enumerate(texts)]
    ours = score_texts(model, tokenizer, scored, prefix_id=PREFIX)
    for text, log, score in zip(texts, logs, ours, strict=True):
        wanted = -log / math.log(2) / len(text.encode())
        assert bits_per_byte([score]) == pytest.approx(wanted, abs=1e-4)
