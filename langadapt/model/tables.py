"""The tables with one row a token: where they are stored, whether they fit the tokenizer, and their values.

Names come from the architecture itself (built without memory), not from a list of known model families.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.facts import stored_name, text_config
from langadapt.model.load import check_safe
from langadapt.model.surroundings import quiet_transformers
from langadapt.model.token_table import TokenTable
from langadapt.model.weights import DTYPE_NAMES, Weights, open_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROW_DTYPES = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class TableNames:
    """Names of the parameters with one row a token; `head` is None when it is the input table, `bias` when absent."""

    input: str
    head: str | None = None
    bias: str | None = None

    def among(self, names: Collection[str]) -> frozenset[str]:
        """Those of the tables that are in `names`."""
        return frozenset(name for name in (self.input, self.head, self.bias) if name is not None and name in names)


@dataclass(frozen=True)
class Tables:
    """The tables of one model folder. `rows` may exceed `tokens.size` (padding); ids may have holes."""

    folder: Path
    config: dict[str, Any]
    names: TableNames
    stored: TableNames
    rows: int
    width: int
    tokens: TokenTable
    weights: Weights

    @property
    def tied(self) -> bool:
        """Is the head the input table?"""
        return self.names.head is None

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
        return None if self.stored.bias is None else self.weights.read(self.stored.bias).float()


def table_names(model: "PreTrainedModel") -> TableNames:
    """Names of input table, head and head bias as the loaded model calls them."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if inputs is None or head is None:
        raise DataError(f"{type(model).__name__} does not say which tables hold its vocabulary")
    names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name, parameter in model.named_parameters():
        names[id(parameter)] = name
    tied = inputs.weight is head.weight
    bias = getattr(head, "bias", None)
    return TableNames(
        input=names[id(inputs.weight)],
        head=None if tied else names[id(head.weight)],
        bias=None if bias is None else names.get(id(bias)),
    )


def open_tables(folder: Path) -> Tables:
    """Find the tables of a model folder and check that config, tables and tokenizer fit together.

    DataError names the numbers when they do not, or the tensor when a table of this architecture is not one that
    langadapt knows how to extend.
    """
    check_safe(folder)
    config = read_json_object(folder / "config.json")
    weights = open_weights(folder)
    names = _names_from_architecture(folder)
    stored = _stored_names(names, weights)
    tokens = TokenTable.from_folder(folder)
    shape = weights.tensors[stored.input].shape
    tables = Tables(folder, config, names, stored, shape[0], shape[-1], tokens, weights)
    _check_sizes(tables)
    return tables


def _names_from_architecture(folder: Path) -> TableNames:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    quiet_transformers()
    models = []
    try:
        for more in (0, 1):
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            config.get_text_config().vocab_size += more
            with torch.device("meta"):
                models.append(AutoModelForCausalLM.from_config(config))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"transformers does not know the architecture of `{folder}`: {error}") from error
    model, longer = models
    model.tie_weights()
    names = table_names(model)
    shapes = {name: tensor.shape for name, tensor in longer.state_dict(keep_vars=True).items()}
    follow = {name for name, tensor in model.state_dict().items() if shapes.get(name) != tensor.shape}
    other = follow - {names.input, names.head, names.bias} - set(model.all_tied_weights_keys)
    if other or getattr(model.config.get_text_config(), "vocab_size_per_layer_input", None):
        # extending two of three tables gives a model that loads and is wrong
        raise DataError(
            f"`{folder}` has another table with a row a token, `{min(other, default='per-layer embeddings')}`; "
            "langadapt can extend an input table, a head and its bias only"
        )
    return names


def _stored_names(names: TableNames, weights: Weights) -> TableNames:
    """The same tensors as the files call them."""

    def find(name: str | None) -> str | None:
        return None if name is None else stored_name(name, weights.tensors)

    found = find(names.input)
    if found is None and names.head is None and "lm_head.weight" in weights.tensors:
        found = "lm_head.weight"
    if found is None:
        raise DataError(f"`{weights.folder}` lacks its input table `{names.input}`")
    head, bias = find(names.head), find(names.bias)
    if names.head is not None and head is None:
        raise DataError(
            f"`{weights.folder}` lacks its head `{names.head}`, and its config does not tie it to the input table",
            hint='if they are one matrix, set "tie_word_embeddings": true in config.json',
        )
    if names.bias is not None and bias is None:
        raise DataError(f"`{weights.folder}` lacks the bias `{names.bias}` of its head")
    return TableNames(found, head, bias)


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
    if stored.bias is not None and tensors[stored.bias].shape != (tables.rows,):
        raise DataError(f"`{folder}`: the head's bias has {list(tensors[stored.bias].shape)} values; {numbers}")
    for name in (stored.input, stored.head, stored.bias):
        if name is not None and tensors[name].dtype not in _ROW_DTYPES:
            raise DataError(f"`{folder}`: `{name}` is stored as {tensors[name].dtype}; rows need a float dtype")
    if tables.tied:
        _check_copies(tables)


def _check_copies(tables: Tables) -> None:
    """A tied matrix may be stored twice; if the copies differ, transformers unties them without asking."""
    import torch

    for name in ("lm_head.weight", "output.weight", "embed_out.weight"):
        if name in tables.weights.tensors and name != tables.stored.input:
            first, second = tables.weights.read(tables.stored.input), tables.weights.read(name)
            if first.shape != second.shape or not torch.equal(first, second):
                raise DataError(
                    f"`{tables.folder}`: config ties head and input table, but the files hold two different matrices",
                    hint='set "tie_word_embeddings": false in config.json',
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
        zero = (flat == 0).all(dim=1) & text if values.ndim == 2 else torch.zeros_like(bad)
        for rows, what in ((bad, "NaN or infinity"), (zero, "nothing but zeros")):
            found: list[int] = torch.nonzero(rows).flatten().tolist()
            if found:
                shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
                raise DataError(f"`{tables.folder}`: {len(found)} rows of `{name}` hold {what}: {shown}")
