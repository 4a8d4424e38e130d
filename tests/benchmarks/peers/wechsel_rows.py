"""WECHSEL: python wechsel_rows.py MODEL TOKENIZER BASE.bin NEW.bin DICTIONARY OUT (see embed_peers.py)."""

import json
import resource
import sys
import time
from pathlib import Path

import fasttext
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from wechsel import WECHSEL


def main(model: str, tokenizer: str, base_bin: str, new_bin: str, dictionary: str, out: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    old, new = AutoTokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(tokenizer)
    table = base.get_input_embeddings().weight.detach().numpy()
    vectors = fasttext.load_model(base_bin), fasttext.load_model(new_bin)
    began = time.process_time()
    wechsel = WECHSEL(*vectors, bilingual_dictionary=dictionary)
    rows, _ = wechsel.apply(old, new, table)
    seconds = time.process_time() - began
    np.save(Path(out) / "rows.npy", rows.astype(np.float32))
    base.resize_token_embeddings(len(new), mean_resizing=False)
    base.get_input_embeddings().weight.data[:] = torch.from_numpy(rows)
    base.save_pretrained(Path(out) / "model")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "all_seconds": time.process_time(), "peak_bytes": peak}
    (Path(out) / "measured.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
