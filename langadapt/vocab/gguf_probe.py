"""The text by which llama.cpp recognises a pre-tokenizer: guarded, so that an extended tokenizer is still recognised.

Its converter encodes this text, hashes the list of ids, and looks the hash up among the tokenizers that it knows; an
unknown hash is refused. New tokens in it would make every extended tokenizer unknown. The text is a constant of that
interface: `chktxt` in convert_hf_to_gguf.py (llama.cpp, MIT licence, The ggml authors); SmolLM2 gives the hash that is
listed there as `smollm`.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n"
    "🚀 (normal) 😶\u200d🌫\ufe0f (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "
    "''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


def probe_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the converter looks up: SHA-256 of the ids as Python prints the list, special tokens included."""
    return sha256(str(tokenizer.encode(PROBE)).encode()).hexdigest()
