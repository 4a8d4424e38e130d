"""Loading and encoding with an extended tokenizer, a native one of the same size, and one with `add_tokens`.

    python -m tests.benchmarks.vocab_load MODEL EXTENDED TEXT.jsonl... [--megabytes 5]

EXTENDED is what `extend-vocab` made of MODEL. The native tokenizer is trained by the tokenizers library on the text,
with the pre-tokenizer of MODEL and as many tokens as EXTENDED has; the third is MODEL with the new tokens given to
`add_tokens` of transformers. Loading is `AutoTokenizer.from_pretrained`, imports not counted; encoding is batches of
documents on one thread. The best of a few processor times, in turns: a busy machine only adds to them.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from tests.benchmarks.vocab_speed import texts_of

ROUNDS = 3
_BATCH = 100


def native(extended: Path, texts: list[str], out: Path) -> None:
    """A byte-level BPE of the same size with the same rules for cutting."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    given = Tokenizer.from_file(str(extended / "tokenizer.json"))
    fresh = Tokenizer(models.BPE())
    fresh.pre_tokenizer, fresh.normalizer, fresh.decoder = given.pre_tokenizer, given.normalizer, given.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=given.get_vocab_size(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=sorted(str(token) for token in given.get_added_tokens_decoder().values()),
        show_progress=False,
        min_frequency=1,
    )
    fresh.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=fresh).save_pretrained(out)


def with_added(model: Path, extended: Path, out: Path) -> None:
    """The base with the strings of the new tokens as added tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = (extended / "vocab_map.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    contents = [bytes.fromhex(json.loads(line)["hex"]) for line in lines]
    tokenizer.add_tokens([content.decode() for content in contents if _is_text(content)])
    tokenizer.save_pretrained(out)


def _is_text(content: bytes) -> bool:
    try:
        return bool(content.decode().strip())
    except UnicodeDecodeError:
        return False


def timed(folder: Path, texts: list[str]) -> tuple[float, float, int, int]:
    """Processor seconds to load and to encode, tokens of the text, tokens of the vocabulary."""
    from transformers import AutoTokenizer

    began = time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = time.process_time() - began
    raw = tokenizer.backend_tokenizer
    began, tokens = time.process_time(), 0
    for start in range(0, len(texts), _BATCH):
        batch = raw.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
        tokens += sum(len(encoding) for encoding in batch)
    return loaded, time.process_time() - began, tokens, len(tokenizer)


def main() -> None:
    from langadapt.model.load import resolve

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("extended", type=Path)
    parser.add_argument("text", type=Path, nargs="+", help="the first is what is encoded")
    parser.add_argument("--megabytes", type=float, default=5.0)
    asked = parser.parse_args()
    model = resolve(asked.model)
    texts: list[str] = []
    size = 0
    for text in texts_of(asked.text[:1]):
        texts.append(text)
        size += len(text.encode())
        if size >= asked.megabytes * 1e6:
            break
    with tempfile.TemporaryDirectory() as name:
        kinds = {"base": model, "extended": asked.extended, "native": Path(name, "n"), "add_tokens": Path(name, "a")}
        native(asked.extended, list(texts_of(asked.text)), kinds["native"])
        with_added(model, asked.extended, kinds["add_tokens"])
        rounds = [{kind: timed(folder, texts) for kind, folder in kinds.items()} for _ in range(ROUNDS)]
    for kind in kinds:
        loads, encodes, tokens, sizes = zip(*(one[kind] for one in rounds), strict=True)
        print(
            f"{kind:10} {sizes[0]:,} tokens: loaded in {min(loads):.2f} s (at most {max(loads):.2f}), encodes "
            f"{size / 1e6 / min(encodes):.2f} MB/s (at least {size / 1e6 / max(encodes):.2f}), "
            f"{size / tokens[0]:.2f} bytes a token"
        )


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    main()
