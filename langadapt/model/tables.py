"""The tables with one row a token: where they are stored, whether they fit the tokenizer, and their values.

Names come from the architecture itself (built without memory), not from a list of known model families.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.empty import meta_model
from langadapt.model.facts import HEADS, INPUT_TABLES, stored_name, text_config
from langadapt.model.kinds import kind_of
from langadapt.model.load import check_safe
from langadapt.model.token_table import TokenTable
from langadapt.model.weights import DTYPE_NAMES, Weights, open_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROW_DTYPES = ("F32", "F16", "BF16", "F64")
_LOGITS_BIAS = "final_logits_bias"


@dataclass(frozen=True)
class TableNames:
    """Names of the parameters with one row a token; `head` is None when it is the input table, `bias` when absent.

    A model without a head over its vocabulary is `headless`; its `head` is None as well.
    """

    input: str
    head: str | None = None
    bias: str | None = None
    headless: bool = False

    def among(self, names: Collection[str]) -> frozenset[str]:
        """Those of the tables that are in `names`."""
        return frozenset(name for name in (self.input, self.head, self.bias) if name is not None and name in names)


@dataclass(frozen=True)
class Tables:
    """The tables of one model folder. `rows` may exceed `tokens.size` (padding); ids may have holes.

    `copies` maps the name of a tensor that is stored a second time to the name in `stored` whose values it has.
    """

    folder: Path
    config: dict[str, Any]
    names: TableNames
    stored: TableNames
    rows: int
    width: int
    tokens: TokenTable
    weights: Weights
    copies: Mapping[str, str] = field(default_factory=dict, repr=False)
    positions_from_padding: bool = False
    """Are positions counted from the id of the padding token on, as in RoBERTa?"""

    @property
    def tied(self) -> bool:
        """Is the head the input table?"""
        return self.names.head is None and not self.names.headless

    @property
    def dtype(self) -> str:
        """Stored dtype of the input table, as torch names it: `bfloat16`."""
        return DTYPE_NAMES[self.weights.tensors[self.stored.input].dtype]

    def read_input(self) -> "torch.Tensor":
        """Input table as float32 [rows, width]."""
        return self.weights.read(self.stored.input).float()

    def read_head(self) -> "torch.Tensor":
        """Head as float32 [rows, width]; the input table when tied."""
        return self.weights.read(self.stored.head or self.stored.input).float()

    def read_bias(self) -> "torch.Tensor | None":
        """Bias of the head as float32 [rows], if the model has one."""
        return None if self.stored.bias is None else self.weights.read(self.stored.bias).float().flatten()

    def own_tensors(self) -> frozenset[str]:
        """Names of all stored tensors with a row (or a value) a token."""
        return self.stored.among(self.weights.tensors) | frozenset(self.copies)


def table_names(model: "PreTrainedModel") -> TableNames:
    """Names of input table, head and head bias as the loaded model calls them."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if inputs is None:
        raise DataError(f"{type(model).__name__} does not say which tables hold its vocabulary")
    names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name, parameter in model.named_parameters():
        names[id(parameter)] = name
    if not names[id(inputs.weight)].endswith(INPUT_TABLES):
        # XLM-R names its head before its body; the table is called by what it is everywhere else
        same = (name for name, one in model.named_parameters(remove_duplicate=False) if one is inputs.weight)
        names[id(inputs.weight)] = next(filter(_is_input, same), names[id(inputs.weight)])
    if head is None:
        return TableNames(names[id(inputs.weight)], headless=True)
    tied = inputs.weight is head.weight
    bias = getattr(head, "bias", None)
    # BART and its family add theirs behind the head
    behind = _LOGITS_BIAS if _LOGITS_BIAS in dict(model.named_buffers()) else None
    return TableNames(
        input=names[id(inputs.weight)],
        head=None if tied else names[id(head.weight)],
        bias=behind if bias is None else names.get(id(bias)),
    )


def _is_input(name: str) -> bool:
    return name.endswith(INPUT_TABLES)


def open_tables(folder: Path) -> Tables:
    """Find the tables of a model folder and check that config, tables and tokenizer fit together.

    DataError names the numbers when they do not, or the tensor when a table of this architecture is not one that
    langadapt knows how to extend.
    """
    check_safe(folder)
    config = read_json_object(folder / "config.json")
    weights = open_weights(folder)
    plan = _names_from_architecture(folder)
    plan = plan if kind_of(config) == "causal" else _untied(plan, weights)
    stored = _stored_names(plan, weights)
    tokens = TokenTable.from_folder(folder)
    shape = weights.tensors[stored.input].shape
    tables = Tables(
        folder,
        config,
        plan.names,
        stored,
        rows=shape[0],
        width=shape[-1],
        tokens=tokens,
        weights=weights,
        copies=_copies(stored, plan, weights),
        positions_from_padding=plan.positions_from_padding,
    )
    _check_sizes(tables)
    return tables


@dataclass(frozen=True)
class _Plan:
    """What an architecture says of its tables; `aliases` are all names of one parameter, by each of them."""

    names: TableNames
    aliases: Mapping[str, tuple[str, ...]]
    positions_from_padding: bool


def _names_from_architecture(folder: Path) -> _Plan:
    model, longer = (meta_model(folder, more_rows=more) for more in (0, 1))
    model.tie_weights()
    names = table_names(model)
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    aliases = {name: tuple(group) for group in groups.values() for name in group}
    shapes = {name: tensor.shape for name, tensor in longer.state_dict(keep_vars=True).items()}
    follow = {name for name, tensor in model.state_dict().items() if shapes.get(name) != tensor.shape}
    known = {name for name in (names.input, names.head, names.bias) if name is not None}
    other = (
        follow - {alias for name in known for alias in aliases.get(name, (name,))} - set(model.all_tied_weights_keys)
    )
    if other or getattr(model.config.get_text_config(), "vocab_size_per_layer_input", None):
        # extending two of three tables gives a model that loads and is wrong
        raise DataError(
            f"`{folder}` has another table with a row a token, `{min(other, default='per-layer embeddings')}`; "
            "langadapt can extend an input table, a head and its bias only"
        )
    return _Plan(names, aliases, _positions_from_padding(model))


def _positions_from_padding(model: "PreTrainedModel") -> bool:
    """RoBERTa gives its table of positions a padding row, and counts positions from it."""
    return any(
        name.endswith("embeddings.position_embeddings") and getattr(module, "padding_idx", None) is not None
        for name, module in model.named_modules()
    )


def _untied(plan: _Plan, weights: Weights) -> _Plan:
    """The plan, with a head of its own where the files hold two different matrices.

    transformers says of every T5 that it is tied, and unties where the files differ.
    """
    import torch

    names = plan.names
    heads = [name for name in plan.aliases.get(names.input, ()) if name in HEADS and name in weights.tensors]
    if names.head is not None or names.headless or not heads or names.input not in weights.tensors:
        return plan
    if torch.equal(weights.read(names.input), weights.read(heads[0])):
        return plan
    rest = tuple(name for name in plan.aliases[names.input] if name != heads[0])
    aliases = dict.fromkeys(rest, rest) | {heads[0]: (heads[0],)}
    return replace(plan, names=replace(names, head=heads[0]), aliases={**plan.aliases, **aliases})


def _stored_names(plan: _Plan, weights: Weights) -> TableNames:
    """The same tensors as the files call them: by one of the names that the model has for each."""
    names = plan.names

    def find(name: str | None) -> str | None:
        known = () if name is None else (name, *plan.aliases.get(name, ()))
        return next((found for alias in known if (found := stored_name(alias, weights.tensors)) is not None), None)

    found = find(names.input)
    if found is None:
        raise DataError(f"`{weights.folder}` lacks its input table `{names.input}`")
    head, bias = find(names.head), find(names.bias)
    if names.head is not None and head is None:
        raise DataError(
            f"`{weights.folder}` lacks its head `{names.head}`, and its config does not tie it to the input table",
            hint='if they are one matrix, set "tie_word_embeddings": true in config.json',
        )
    if names.bias not in (None, _LOGITS_BIAS) and bias is None:
        raise DataError(f"`{weights.folder}` lacks the bias `{names.bias}` of its head")
    return TableNames(found, head, bias, names.headless)


def _copies(stored: TableNames, plan: _Plan, weights: Weights) -> dict[str, str]:
    """Tensors that are stored again under another name of the same parameter."""
    found = {}
    names = plan.names
    for name, main in ((names.input, stored.input), (names.head, stored.head), (names.bias, stored.bias)):
        for alias in plan.aliases.get(name or "", ()):
            copy = stored_name(alias, weights.tensors)
            if main is not None and copy not in (None, main):
                found[str(copy)] = main
    return found


def _check_sizes(tables: Tables) -> None:
    folder, tensors, stored = tables.folder, tables.weights.tensors, tables.stored
    said = text_config(tables.config).get("vocab_size")
    numbers = f"config says {said}, the input table has {tables.rows:,} rows, the tokenizer {tables.tokens.size:,} ids"
    if len(tensors[stored.input].shape) != 2:
        raise DataError(f"`{folder}`: `{stored.input}` has shape {list(tensors[stored.input].shape)}, not two axes")
    if said != tables.rows:
        raise DataError(f"`{folder}` disagrees with itself: {numbers}")
    if tables.tokens.size > tables.rows:
        raise DataError(
            f"`{folder}` has tokens without rows: {numbers}",
            hint="use the tokenizer that the model was trained with",
        )
    if stored.head is not None and tensors[stored.head].shape != tensors[stored.input].shape:
        raise DataError(
            f"`{folder}`: head {list(tensors[stored.head].shape)} and input table {list(tensors[stored.input].shape)} "
            "have different shapes"
        )
    if stored.bias is not None and tensors[stored.bias].shape not in ((tables.rows,), (1, tables.rows)):
        raise DataError(f"`{folder}`: the head's bias has {list(tensors[stored.bias].shape)} values; {numbers}")
    for name in (stored.input, stored.head, stored.bias):
        if name is not None and tensors[name].dtype not in _ROW_DTYPES:
            raise DataError(f"`{folder}`: `{name}` is stored as {tensors[name].dtype}; rows need a float dtype")
    _check_copies(tables)


def _check_copies(tables: Tables) -> None:
    """A matrix may be stored twice; if the copies differ, transformers unties them without asking."""
    import torch

    for name, main in sorted(tables.copies.items()):
        first, second = tables.weights.read(main), tables.weights.read(name)
        if first.shape != second.shape or not torch.equal(first, second):
            both = "head and input table" if name in HEADS else f"`{main}` and `{name}`"
            raise DataError(
                f"`{tables.folder}`: config ties {both}, but the files hold two different matrices",
                hint='set "tie_word_embeddings": false in config.json' if name in HEADS else None,
            )


def check_values(tables: Tables) -> None:
    """DataError with row ids if a row holds NaN or infinity, or if the row of a text token is all zero."""
    import torch

    text = torch.zeros(tables.rows, dtype=torch.bool)
    text[torch.from_numpy(tables.tokens.text_ids())] = True
    for name in (tables.stored.input, tables.stored.head, tables.stored.bias):
        if name is None:
            continue
        values = tables.weights.read(name)
        flat = values.reshape(tables.rows, -1)
        bad = ~torch.isfinite(flat).all(dim=1)
        # unused and special rows may be zero by design, and so may a bias
        zero = (flat == 0).all(dim=1) & text if name != tables.stored.bias else torch.zeros_like(bad)
        for rows, what in ((bad, "NaN or infinity"), (zero, "nothing but zeros")):
            found: list[int] = torch.nonzero(rows).flatten().tolist()
            if found:
                shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
                raise DataError(f"`{tables.folder}`: {len(found)} rows of `{name}` hold {what}: {shown}")
