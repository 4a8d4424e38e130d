"""deepfocus: python deepfocus_rows.py MODEL TOKENIZER TOKENS.bin OUT (see embed_peers.py)."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from deepfocus import FOCUS
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(model: str, tokenizer: str, tokens_bin: str, out: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    old, new = AutoTokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(tokenizer)
    began = time.process_time()
    rows = FOCUS(
        target_tokenizer=new,
        source_tokenizer=old,
        source_embeddings=base.get_input_embeddings().weight.detach(),
        fasttext_model_path=tokens_bin,
        processes=1,
    )
    seconds = time.process_time() - began
    np.save(Path(out) / "rows.npy", rows.float().numpy())
    base.resize_token_embeddings(len(new), mean_resizing=False)
    base.get_input_embeddings().weight.data[:] = rows
    base.save_pretrained(Path(out) / "model")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "all_seconds": time.process_time(), "peak_bytes": peak}
    (Path(out) / "measured.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
