"""What a method may ask for: the tokens, rows of the base model, and what was given beside the two tokenizers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from langadapt.core.errors import ConfigError, LangadaptError
from langadapt.core.progress import Progress
from langadapt.core.rng import stream
from langadapt.core.types import NewToken
from langadapt.embed.types import Floats, Ints, Role, Vocabulary

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from langadapt.embed.helper import Helper
    from langadapt.embed.predicted import PredictedRows
    from langadapt.embed.stored import StoredMaps
    from langadapt.embed.trained_helper import TrainedHelper
    from langadapt.embed.vectors import WordVectors

Opened = TypeVar("Opened")

# What `@method(needs=...)` may name, and how a person gives it. `a|b`: one of the two is enough; `a?`: used if there.
NEEDS = {
    "corpus": "text in the new language: `--corpus CORPUS`",
    "vectors": "word vectors of the new language: `--vectors FILE.vec`",
    "base_vectors": "word vectors of a language that the base knows: `--base-vectors FILE.vec`",
    "dictionary": "word pairs, `base word<TAB>new word` a line: `--dictionary FILE.tsv`",
    "helper": "a model that has the new tokenizer: `--helper MODEL`, or `--helper train --corpus CORPUS`",
    "parallel": "sentence pairs, `base sentence<TAB>new sentence` a line: `--parallel FILE.tsv`",
    "counts": "counts of token pairs: `--counts FILE.tsv`",
    "rows": "rows of the new tokens: `--rows FILE.safetensors`",
    "like": "a model that init-embeddings made with this tokenizer from a sibling: `--like MODEL`",
}
# There for every method; named in `needs` so that `langadapt show method` can say what a method looks at.
ALWAYS = ("base_tokenizer", "target_tokenizer", "base_rows")


@dataclass(frozen=True)
class Given:
    """How to open each thing, at the time a method first asks for it; None for what was not given.

    `table` is the base table that the rows are for, in its stored dtype; `digests` are those of the step's inputs by
    name, for results that are kept in the cache.
    """

    table: "Callable[[], torch.Tensor] | None" = None
    base_tokenizer: "Callable[[], Tokenizer] | None" = None
    target_tokenizer: "Callable[[], Tokenizer] | None" = None
    corpus: Callable[[], Iterator[str]] | None = None
    vectors: "Callable[[], WordVectors] | None" = None
    base_vectors: "Callable[[], WordVectors] | None" = None
    helper: "Callable[[], Helper | TrainedHelper] | None" = None
    dictionary: Callable[[], Iterator[tuple[str, ...]]] | None = None
    parallel: Callable[[], Iterator[tuple[str, ...]]] | None = None
    counts: Callable[[], Iterator[tuple[str, ...]]] | None = None
    rows: "Callable[[], PredictedRows] | None" = None
    like: "Callable[[], StoredMaps] | None" = None
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InitInputs:
    """What a method gets. `role` says which table the rows are for; `population` are the ids of text tokens.

    `kept` maps the old id of each token that keeps its row to its id in the new tokenizer, `target` is that tokenizer.
    """

    base: Vocabulary
    new_tokens: Sequence[NewToken]
    old_rows: int
    population: Ints
    role: Role = "tied"
    seed: int = 0
    kept: Mapping[int, int] = field(default_factory=dict, repr=False)
    target: Vocabulary | None = None
    given: Given = field(default_factory=Given, repr=False)
    progress: Progress = field(default_factory=Progress, repr=False)

    def base_rows(self, ids: "Ints | slice") -> Floats:
        """Rows of the base table that the new rows are for, in float32 [n, width]; the rest stays on the disk."""
        table = self._open("the base table", self.given.table)
        import torch

        where = ids if isinstance(ids, slice) else torch.from_numpy(np.asarray(ids, dtype=np.int64))
        return table[where].float().numpy()

    def anchors(self) -> tuple[Ints, Ints]:
        """(old ids, new ids) of the text tokens that both tokenizers have, by ascending old id."""
        text = [id for id in self.population.tolist() if id in self.kept]
        return np.array(text, dtype=np.int64), np.array([self.kept[id] for id in text], dtype=np.int64)

    def base_tokenizer(self) -> "Tokenizer":
        """The base tokenizer whole, with normaliser and pre-tokenizer, for running text."""
        return self._open("the base tokenizer", self.given.base_tokenizer)

    def target_tokenizer(self) -> "Tokenizer":
        """The new tokenizer whole, for running text."""
        return self._open("the new tokenizer", self.given.target_tokenizer)

    def corpus(self) -> Iterator[str]:
        """Texts in the new language, in an order that makes any beginning a fair sample."""
        return self._open("corpus", self.given.corpus)

    def vectors(self) -> "WordVectors":
        """Word vectors of the new language."""
        return self._open("vectors", self.given.vectors)

    def base_vectors(self) -> "WordVectors":
        """Word vectors of a language that the base model knows."""
        return self._open("base_vectors", self.given.base_vectors)

    def helper(self) -> "Helper | TrainedHelper":
        """Rows of a model that has the new tokenizer, or of what stands for one."""
        return self._open("helper", self.given.helper)

    def dictionary(self) -> Iterator[tuple[str, ...]]:
        """(base word, new word), in the order of the file."""
        return self._open("dictionary", self.given.dictionary)

    def parallel(self) -> Iterator[tuple[str, ...]]:
        """(base sentence, new sentence), in the order of the file."""
        return self._open("parallel", self.given.parallel)

    def counts(self) -> Iterator[tuple[str, ...]]:
        """(base token, new token, count) as they stand in the file."""
        return self._open("counts", self.given.counts)

    def rows(self) -> "PredictedRows":
        """Rows that something else predicted, from a file."""
        return self._open("rows", self.given.rows)

    def like(self) -> "StoredMaps":
        """Row maps of a sibling model."""
        return self._open("like", self.given.like)

    def has(self, need: str) -> bool:
        """Was it given? For methods that can do without."""
        return getattr(self.given, need) is not None

    def stream(self, purpose: str, *index: int | str) -> np.random.Generator:
        """A random stream of the method's own: draws for one token do not depend on which tokens came before."""
        return stream(self.seed, purpose, self.role, *index)

    def _open(self, need: str, source: Callable[[], Opened] | None) -> Opened:
        if source is not None:
            return source()
        if need in NEEDS:
            raise ConfigError(f"`{need}` is missing", hint=f"give {NEEDS[need]}")
        raise LangadaptError(f"internal: a method asked for {need}, and the step did not offer it")


def check_needs(name: str, needs: Sequence[str], given: Mapping[str, object]) -> None:
    """ConfigError if something that the method `name` needs is not in `given` (or is None there)."""
    for need in needs:
        ways = need.rstrip("?").split("|")
        unknown = [way for way in ways if way not in NEEDS and way not in ALWAYS]
        if unknown:
            raise LangadaptError(f"the method `{name}` needs `{unknown[0]}`, which is none of {', '.join(NEEDS)}")
        if not need.endswith("?") and not any(way in ALWAYS or given.get(way) is not None for way in ways):
            shown = ", or ".join(NEEDS[way] for way in ways)
            missing = " or ".join(f"`{way}`" for way in ways)
            raise ConfigError(f"the method `{name}` needs {missing}", where="method", hint=f"give {shown}")


def unused(needs: Sequence[str], given: Mapping[str, object]) -> list[str]:
    """What was given and is not among `needs`."""
    wanted = {way for need in needs for way in need.rstrip("?").split("|")}
    return [name for name in NEEDS if given.get(name) is not None and name not in wanted]
