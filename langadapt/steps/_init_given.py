"""What init-embeddings hands to a method: each input opened when the method first asks for it, and once only."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.inputs import Input, Inputs
from langadapt.core.registry import Method
from langadapt.embed.inputs import Given
from langadapt.embed.vectors import is_vectors
from langadapt.steps._vocabulary import size_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from langadapt.embed.helper import Helper
    from langadapt.embed.predicted import PredictedRows
    from langadapt.embed.stored import StoredMaps
    from langadapt.embed.trained_helper import TrainedHelper
    from langadapt.embed.vectors import WordVectors
    from langadapt.model.tables import Tables
    from langadapt.model.token_table import TokenTable

# Measured on one core with 6.6 MB of Hungarian and 10.3 MB of English: 5 (vectors of tokens) and 8 (of words).
_SECONDS_A_MEGABYTE = 8
_MOST_BYTES = 64_000_000
# `align` cuts the text and learns nothing, 10 s for 6.6 MB; `counts` aligns sentences and entries, 45 s for 20.6 MB.
_CUTTING_SECONDS_A_MEGABYTE, _ALIGNING_SECONDS_A_MEGABYTE = 1.6, 2.2
_TEXTS = ("corpus", "vectors", "base_vectors")
# A learned helper: 14.6 s on one core with 6.1 MB of Hungarian and 16,000 tokens, 10 s of them for its directions.
_HELPER_SECONDS, _HELPER_SECONDS_A_MEGABYTE = 10, 0.8
_HELPER_MOST_BYTES = 32_000_000
_FORMS = {
    "dictionary": (2, "write `base word<TAB>new word`"),
    "parallel": (2, "write `base sentence<TAB>new sentence`; `paste a.txt b.txt > pairs.tsv` joins two files"),
    "counts": (3, "write `base token<TAB>new token<TAB>count`"),
}


def given_by(out: Output, tables: "Tables", target: "TokenTable") -> Given:
    """How to open what this run was given; the base table itself is the caller's, for it differs for input and head."""
    there = {name: value for name, value in out.inputs.items() if isinstance(value, Input)}

    def columns(name: str) -> Callable[[], Iterator[tuple[str, ...]]] | None:
        if name not in there:
            return None
        from langadapt.corpus.parallel import filled_columns

        return lambda: filled_columns(there[name].path, *_FORMS[name])

    @cache
    def helper() -> "Helper | TrainedHelper":
        from langadapt.embed.helper import open_helper
        from langadapt.embed.trained_helper import train_helper

        if there["helper"].word:
            digests = [there[name].digest for name in ("corpus", "tokenizer")]
            texts = _texts(there["corpus"], out)
            return train_helper(texts, _tokenizer(target), target.size, digests, out.progress)
        return open_helper(there["helper"].path, target)

    @cache
    def rows() -> "PredictedRows":
        from langadapt.embed.predicted import open_rows

        return open_rows(there["rows"].path, target)

    @cache
    def like() -> "StoredMaps":
        from langadapt.embed.stored import open_stored

        return open_stored(there["like"].path, there["like"].facts.get("base_vocabulary"), target)

    return Given(
        base_tokenizer=cache(lambda: _tokenizer(tables.tokens)),
        target_tokenizer=cache(lambda: _tokenizer(target)),
        corpus=(lambda: _texts(there["corpus"], out)) if "corpus" in there else None,
        vectors=_vectors(there.get("vectors") or there.get("corpus"), out),
        base_vectors=_vectors(there.get("base_vectors"), out),
        helper=helper if "helper" in there else None,
        dictionary=columns("dictionary"),
        parallel=columns("parallel"),
        counts=columns("counts"),
        rows=rows if "rows" in there else None,
        like=like if "like" in there else None,
        digests={name: value.digest for name, value in there.items()},
    )


def learning_seconds(methods: "Iterable[tuple[Method, Any]]", inputs: Inputs) -> float:
    """Time to learn vectors from the texts that are given: not where a file of vectors is, or the cache has them."""
    ways = {
        method.name: {way for need in method.facts.needs for way in need.rstrip("?").split("|")}
        for method, _ in methods
    }
    needs = set().union(*ways.values())
    given = {name: value for name, value in inputs.items() if isinstance(value, Input) and name in needs}
    texts = {given[name].digest: given[name] for name in _TEXTS if name in given}
    learned = (text for text in texts.values() if not is_vectors(text.path))
    readers = {name for name, wanted in ways.items() if wanted & set(_TEXTS)}
    rate = _CUTTING_SECONDS_A_MEGABYTE if readers == {"align"} else _SECONDS_A_MEGABYTE
    seconds = sum(rate * min(size_of(text), _MOST_BYTES) / 1e6 for text in learned)
    pairs = [given[name] for name in ("dictionary", "parallel") if name in given and "counts" in ways]
    seconds += sum(_ALIGNING_SECONDS_A_MEGABYTE * size_of(pair) / 1e6 for pair in pairs)
    helper, corpus = given.get("helper"), inputs.get("corpus")
    if helper is not None and helper.word and isinstance(corpus, Input):
        seconds += _HELPER_SECONDS + _HELPER_SECONDS_A_MEGABYTE * min(size_of(corpus), _HELPER_MOST_BYTES) / 1e6
    return seconds


def stored_table(tables: "Tables", name: str) -> "torch.Tensor":
    """Input table or head as it is stored; memory is taken for rows that are looked at."""
    stored = tables.stored.head if name == "head" and tables.stored.head is not None else tables.stored.input
    return tables.weights.read(stored)


def _tokenizer(tokens: "TokenTable") -> "Tokenizer":
    from tokenizers import Tokenizer

    from langadapt.core.boundary import Reading

    with Reading(f"`{tokens.folder}/tokenizer.json` cannot be loaded"):
        tokenizer = Tokenizer.from_file(str(tokens.folder / "tokenizer.json"))
    # many files ask for 512 tokens at the most: what is longer would be cut off without a word
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _texts(corpus: Input, out: Output) -> Iterator[str]:
    from langadapt.corpus.store import documents

    for document in out.progress.track(documents(corpus.path), f"reading {corpus.given}", unit="documents"):
        yield document.text


def _vectors(given: Input | None, out: Output) -> "Callable[[], WordVectors] | None":
    if given is None:
        return None

    @cache
    def opened() -> "WordVectors":
        from langadapt.embed.vectors import open_vectors

        return open_vectors(given.path, given.digest, lambda: _texts(given, out), out.progress)

    return opened
