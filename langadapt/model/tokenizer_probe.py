"""Run in a process of its own, with limits: load a tokenizer.json or a SentencePiece `.model`, cut texts.

The texts come on stdin as a JSON list. It imports nothing of langadapt, so that it starts in 0.1 s. Exit code 0: the
file loads and works. Of a `.model` the ids of each text go to stdout, as JSON.
"""

import json
import sys


def main(path: str) -> None:
    """Load, encode and decode; whatever is wrong ends this process, by an exception or by a signal."""
    texts = json.loads(sys.stdin.read())
    if path.endswith(".model"):
        cut_by_sentencepiece(path, texts)
    else:
        cut_by_tokenizers(path, texts)


def cut_by_tokenizers(path: str, texts: list[str]) -> None:
    """Encode and decode, with special tokens and without."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in texts:
        for special in (False, True):
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=special).ids, skip_special_tokens=special)


def cut_by_sentencepiece(path: str, texts: list[str]) -> None:
    """Encode and decode; print the ids."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    processor.Load(path)
    found = [processor.EncodeAsIds(text) for text in texts]
    for ids in found:
        processor.DecodeIds(ids)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
