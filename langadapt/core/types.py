"""The few frozen types that travel between rooms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a stable id; `lang` is what the user declared, `source` the file it came from (its name only)."""

    id: str
    text: str
    lang: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that the base tokenizer does not have.

    `piece` is the string stored in tokenizer.json, `content` the bytes it stands for, `count` how often the
    new tokenizer produced it on the text it was learned from, `reason` why it was added (e.g. "merge 17").
    """

    id: int
    piece: str
    content: bytes
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """How a new tokenizer relates to the base model's table: kept tokens keep their rows, new ids need one.

    `kept` maps old id -> new id (identity when a vocabulary was extended); `dropped` are old ids without a new one.
    `renumbered`: ids moved, so rows follow the new tokenizer; else every row of the base stays where it is.
    `tiers` counts kept tokens by how they were recognised: id, bytes, byte, added, string, role.
    """

    old_rows: int
    new_rows: int
    kept: dict[int, int]
    new_tokens: Sequence[NewToken] = field(default_factory=tuple)
    dropped: tuple[int, ...] = ()
    renumbered: bool = False
    tiers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """One fixed-length window of a token shard.

    `tokens` has block_tokens ids. `starts` are the offsets in it at which a new document begins (its separator);
    offset 0 is a start only if a document begins there.
    """

    tokens: Sequence[int]
    starts: Sequence[int]
    source: str
    epoch: int
    index: int


@dataclass(frozen=True, slots=True)
class Snippet:
    """A stretch of text as two tokenizers cut it: `new` and `old` are its ids (int32).

    `new_at[i]` and `old_at[i]` are places of tokens that end at the same byte, ascending, from the first new token on.
    """

    new: "np.ndarray[Any, np.dtype[np.int32]]"
    old: "np.ndarray[Any, np.dtype[np.int32]]"
    new_at: "np.ndarray[Any, np.dtype[np.int32]]"
    old_at: "np.ndarray[Any, np.dtype[np.int32]]"


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows or columns of one tensor: places `ids` (int32, ascending, each once) along an axis of it as it is stored.

    Of a tensor with one axis they are single values, and `axis` is 0.
    """

    axis: int
    ids: "np.ndarray[Any, np.dtype[np.int32]]"


@dataclass(frozen=True, slots=True)
class Movable:
    """What training may change: `names` of the model's own parameters as wholes, `slices` of others by their names.

    `adapter` holds the keys of a peft configuration: what it adds is trained, and merged into the frozen weights at
    the end; of the matrices that `slices` names it then changes these places only. `keep_adapter` saves it as well.
    `tables_factor` multiplies the learning rate of input table and head. Everything that is not named is a shield.
    """

    names: frozenset[str]
    slices: Mapping[str, Slice] = field(default_factory=dict)
    adapter: Mapping[str, Any] | None = None
    keep_adapter: bool = False
    tables_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Portion:
    """How much of a model a strategy lets move, known before the model is: shares of the body's and tables' numbers.

    `rank` is the width of an adapter beside every matrix of the body, 0 without one. `whole`: what moves of the body is
    whole tensors, not parts of all of them.
    """

    body: float = 0.0
    tables: float = 0.0
    rank: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The price of a step, known before it runs. None means: cannot be known yet.

    `facts` predicts the facts of the artifact that the step will write, for the estimates of later steps.
    `rows` are (name, value) pairs for people, in the order they should be shown. `timed`: the time comes from something
    that was timed on this machine just now, and `rows` say so if it was busy; else it is that of a quiet machine.
    `passing_bytes`: so much of `disk_bytes` is free again when the step has ended (checkpoints).
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    facts: dict[str, object] = field(default_factory=dict)
    rows: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    timed: bool = False
    passing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A small table for people: all cells are text already; `notes` are sentences below it.

    `key` stands before the first cell of each row where no table is drawn (in a pipe), so that the rows of several
    tables stay apart.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    key: str = ""


Verdict = Literal["better", "worse", "no detectable change"]
