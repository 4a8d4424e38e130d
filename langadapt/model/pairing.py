"""Which token of one tokenizer is which of another, when ids say nothing: by (kind, bytes), special tokens by role.

In this order, each base token at most once:

bytes   a text token of the same bytes
byte    the same bytes, on one side as the token of a single byte (`<0x41>` and `A`)
string  a special or added token of the same string, unless the two play different parts
role    a special token that plays the same part: end of text, begin, unknown, padding, ...
string  what is left of the same string
added   the same bytes, on one side as an added token (runs of spaces in GPT-NeoX)

Strings go before roles because a chat model often ends its turns with another token than its base model ends texts
with, and has both: by role alone `<|im_end|>` would get the row of `<|endoftext|>`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from langadapt.model.roles import partner, role_ids
from langadapt.model.spelling import byte_piece
from langadapt.model.token_table import TokenTable

_BYTE_PIECES = frozenset(byte_piece(byte) for byte in range(256))


@dataclass
class Pairs:
    """Old id -> new id, and how many pairs each rule found."""

    kept: dict[int, int] = field(default_factory=dict)
    tiers: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._taken: set[int] = set(self.kept.values())

    def add(self, old: int | None, new: int, tier: str) -> None:
        """Pair the two unless one of them has a partner already."""
        if old is not None and old not in self.kept and new not in self._taken:
            self.kept[old] = new
            self._taken.add(new)
            self.tiers[tier] += 1


def pair(base: TokenTable, new: TokenTable) -> Pairs:
    """All tokens that are the same in both; the lower id first where a tokenizer has the same bytes twice."""
    pairs = Pairs()
    text, single = _by_kind(base)
    new_text, new_single = _by_kind(new)
    for mine, theirs, tier in (
        (text, new_text, "bytes"),
        (single, new_single, "bytes"),
        (text, new_single, "byte"),
        (single, new_text, "byte"),
    ):
        for content, id in theirs.items():
            pairs.add(mine.get(content), id, tier)
    _pair_special(pairs, base, new)
    added, new_added = ({table.bytes_of(id): id for id in _of_kind(table, "added")} for table in (base, new))
    for mine, theirs in ((text, new_added), (added, new_text)):
        for content, id in theirs.items():
            pairs.add(mine.get(content), id, "added")
    return pairs


def _pair_special(pairs: Pairs, base: TokenTable, new: TokenTable) -> None:
    old_roles, new_roles = role_ids(base), role_ids(new)
    strings = {base.piece(id): id for id in _of_kind(base, "special", "added")}
    named = {id: strings.get(new.piece(id)) for id in _of_kind(new, "special", "added")}
    for id, old in named.items():
        if old is not None and not _differ(_parts(old_roles, old), _parts(new_roles, id)):
            pairs.add(old, id, "string")
    for role, id in new_roles.items():
        pairs.add(partner(role, old_roles), id, "role")
    for id, old in named.items():
        pairs.add(old, id, "string")


def _parts(roles: Mapping[str, int], id: int) -> set[str]:
    return {role for role, holder in roles.items() if holder == id}


def _differ(one: set[str], two: set[str]) -> bool:
    return bool(one) and bool(two) and not one & two


def _of_kind(table: TokenTable, *kinds: str) -> Iterable[int]:
    return [id for id in range(table.size) if table.kind_of(id) in kinds]


def _by_kind(table: TokenTable) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Bytes -> id of text tokens, and of the tokens of single bytes that some families have beside them."""
    text: dict[bytes, int] = {}
    single: dict[bytes, int] = {}
    for id in table.text_ids().tolist():
        lone = table.family != "byte-bpe" and table.pieces[id] in _BYTE_PIECES
        (single if lone else text).setdefault(table.bytes_of(id), id)
    return text, single
