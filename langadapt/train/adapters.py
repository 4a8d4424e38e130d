"""Adapters of peft on a model in memory: put in, proved to be mergeable, merged.

peft makes the layers and knows how to merge each kind. What it leaves to its caller is done here: the tables stay plain
parameters (its own way, `modules_to_save`, trains two copies of a tied table), initial values come from a stream of the
seed, and nothing is trained that a plain model folder could not hold at the end.
"""

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langadapt.core.config import nearest
from langadapt.core.errors import ConfigError, LangadaptError
from langadapt.core.rng import stream_key
from langadapt.train.stored import STAYS_STORED, is_stored

NAME = "default"
_VIRTUAL = "it puts learnt vectors in front of the text, which no plain model folder can hold"
_MIXES = "it mixes several adapters by what it reads, so there is no one matrix to merge"
_REFUSED_TYPES = {
    "ADALORA": "it moves its ranks by a state of its own, which is neither a weight nor a moment of the optimiser",
    "ADAPTION_PROMPT": _VIRTUAL,
    "CARTRIDGE": _VIRTUAL,
    "POLY": _MIXES,
    "SHADOW": "it adds a network beside the layers",
    "TRAINABLE_TOKENS": "input table and head are trained whole here",
    "XLORA": _MIXES,
}
_REFUSED_KEYS = {
    "modules_to_save": "it trains two copies of a tied table; input table and head are trained whole here",
    "trainable_token_indices": "input table and head are trained whole here",
    "target_parameters": "only whole layers can be merged here",
    "layer_replication": "the model would get more layers",
    "inference_mode": "nothing would be trained",
    "auto_mapping": "the model is known",
}
# Of the largest value that a layer puts out; fp32 rounding made 3e-6 at most, an adapter that cannot be merged 0.9.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Adapter:
    """What was put into `model`: its layers by the names of those that they wrap, and the names of all that is trained.

    `names` are parameters of `model` as it is now: those of the adapter, tables, and biases if the adapter wants them.
    `biases` names the latter, those outside its layers too, as `model` was loaded.
    """

    model: nn.Module
    config: Any
    layers: Mapping[str, Any]
    names: frozenset[str]
    biases: frozenset[str]
    # adapters with parts that several layers share keep them here
    tuner: nn.Module

    @property
    def kind(self) -> str:
        """Type of the adapter as peft calls it: `LORA`."""
        return str(self.config.peft_type.value)

    @torch.no_grad()
    def merge(self, stored_as: Callable[[str], torch.dtype]) -> dict[str, torch.Tensor]:
        """Merge in fp32 and round to the dtype that `stored_as` gives for a name; returns the new tensors by that name.

        The model is left as what they make when they are loaded: adapters off, weights rounded.
        """
        merged = {}
        for name, layer in self.layers.items():
            for value in layer.get_base_layer().parameters():
                value.data = value.data.float()
            try:
                layer.merge(safe_merge=True)
            except ValueError as error:
                raise LangadaptError(f"the adapter of `{name}` cannot be merged: {error}") from error
            base = layer.get_base_layer()
            for part, value in base.named_parameters():
                rounded = value.detach().to(stored_as(f"{name}.{part}"))
                merged[f"{name}.{part}"] = rounded
                value.data = rounded if is_stored(base) and part == "weight" else rounded.float()
        wrapped = {id(value) for layer in self.layers.values() for value in layer.parameters()}
        for name, value in self.model.named_parameters():
            if name in self.names and id(value) not in wrapped:
                merged[name] = value.detach().to(stored_as(name))
                value.data = merged[name].float()
        return merged


def read_config(wanted: Mapping[str, Any]) -> Any:
    """The configuration as peft holds it. ConfigError: an unknown key or type, or one that cannot be merged."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

    kinds = {kind.value: found for kind, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = str(wanted["peft_type"]).upper()
    if kind not in kinds:
        near = nearest(kind, sorted(kinds))
        raise ConfigError(f"peft has no adapter `{kind}`", hint=f"did you mean `{near}`?" if near else None)
    known = kinds[kind].__dataclass_fields__
    rest = {key: value for key, value in wanted.items() if key != "peft_type"}
    if kind == "LN_TUNING" and rest.get("target_modules") == "all-linear":
        del rest["target_modules"]  # it changes norms, and knows them by the kind of model
    for key, value in rest.items():
        if key in _REFUSED_KEYS and value:
            raise ConfigError(f"`{key}` cannot be used: {_REFUSED_KEYS[key]}", hint=f"leave `{key}` out")
        if key not in known and not (key == "target_modules" and value == "all-linear"):
            near = nearest(key, sorted(known))
            raise ConfigError(f"`{kind}` of peft has no key `{key}`", hint=f"did you mean `{near}`?" if near else None)
    reason = _REFUSED_TYPES.get(kind)
    config: Any
    try:
        config = kinds[kind](**{"task_type": "CAUSAL_LM"} | {key: rest[key] for key in rest if key in known})
    except (TypeError, ValueError, ImportError) as error:
        if reason is None:
            raise ConfigError(f"peft refuses the configuration of `{kind}`: {error}") from error
        config = None
    if reason is None and (config.is_prompt_learning or PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type) is None):
        reason = _VIRTUAL
    if reason is not None:
        raise ConfigError(f"`{kind}` cannot be used: {reason}", hint="use `--strategy lora`")
    return config


def attach(model: nn.Module, wanted: Mapping[str, Any], own: frozenset[str], *, seed: int) -> Adapter:
    """Put an adapter into the model, beside its `own` parameters that are trained whole.

    Initial values are a function of the seed; torch's global stream is untouched. ConfigError: layers that are not
    there, a table among them, or an adapter that changes weights of the base or cannot be merged.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = read_config(wanted)
    _check_targets(model, config, own)
    before = {id(value): (name, value._version, value.data_ptr()) for name, value in model.named_parameters()}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # transposed layers (GPT-2) are recognised; peft warns that it had to
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(stream_key(seed, "adapter") % 2**63)
        try:
            tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, adapter_name=NAME)
        except (ValueError, TypeError, RuntimeError, ImportError, AttributeError, KeyError, IndexError) as error:
            raise ConfigError(
                f"peft cannot put `{config.peft_type.value}` into this model: {error}",
                hint=f"name layers of it (`targets` of `lora`): {', '.join(_matrix_names(model))}",
            ) from error
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    now = {id(value): (value._version, value.data_ptr()) for value in model.parameters()}
    changed = sorted(name for key, (name, *state) in before.items() if now.get(key) != tuple(state))
    added = {name for name, value in model.named_parameters() if value.requires_grad and id(value) not in before}
    biases = {name for name, value in model.named_parameters() if value.requires_grad and id(value) in before}
    plain = frozenset(name.replace(".base_layer.", ".") for name in biases)
    adapter = Adapter(model, config, layers, frozenset(added | biases) | own, plain, tuner)
    if changed:
        raise ConfigError(
            f"`{adapter.kind}` with these keys changes weights of the base before training, such as `{changed[0]}`; "
            "langadapt keeps them as they are",
            hint="leave out `init_lora_weights`",
        )
    outside = [name for name, value in tuner.named_parameters() if value.requires_grad and id(value) not in now]
    if not added or outside:
        raise ConfigError(f"`{adapter.kind}` with these keys trains nothing that belongs to a layer of this model")
    if not next(model.parameters()).is_meta:
        _prove_merge(adapter, seed)
    return adapter


def _check_targets(model: nn.Module, config: Any, own: frozenset[str]) -> None:
    """ConfigError if a name means no layer (peft says so only if none does) or means a table."""
    wanted = getattr(config, "target_modules", None)
    names = [name for name, module in model.named_modules() if name and next(module.children(), None) is None]
    tables = _table_names(model)
    if isinstance(wanted, str):
        if wanted.lower() == "all-linear":
            return
        try:
            found = {wanted: [name for name in names if re.fullmatch(wanted, name)]}
        except re.error as error:
            raise ConfigError(f"`target_modules` is not a pattern: {error}") from error
    else:
        found = {each: [name for name in names if f".{name}".endswith(f".{each}")] for each in sorted(wanted or ())}
    for each, met in found.items():
        if not met:
            known = _matrix_names(model)
            near = nearest(each, known)
            raise ConfigError(
                f"this model has no layer `{each}`; it has {', '.join(known)}",
                hint=f"did you mean `{near}`?" if near else None,
            )
        if met[0] in tables:
            raise ConfigError(
                f"`{each}` is a table; tables are trained whole, an adapter on a tied one would be merged twice",
                hint=f"leave `{each}` out",
            )


def _matrix_names(model: nn.Module) -> list[str]:
    """Last parts of the names of all matrices that are no tables, sorted; those that an adapter wraps among them."""
    tables = _table_names(model)
    names = {name.removesuffix(".base_layer") for name, module in model.named_modules()
             if _is_matrix(module) and name not in tables and ".lora_" not in name}  # fmt: skip
    return sorted({name.rpartition(".")[2] for name in names})


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2


def _table_names(model: Any) -> set[str]:
    """Modules that hold input table or head."""
    tables = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    return {name for name, module in model.named_modules() if id(module) in tables}


@torch.no_grad()
def _prove_merge(adapter: Adapter, seed: int) -> None:
    """ConfigError unless a moved copy of one layer of each kind puts out the same before and after it is merged."""
    kinds = {
        (type(layer), type(layer.get_base_layer())): name for name, layer in reversed(list(adapter.layers.items()))
    }
    for name in kinds.values():
        base = adapter.layers[name].get_base_layer()
        if not isinstance(getattr(base, "weight", None), torch.Tensor):
            raise ConfigError(
                f"`{adapter.kind}` cannot be merged into `{name}`: a `{type(base).__name__}` is no single matrix",
                hint=f"name other layers (`targets` of `lora`): {', '.join(_matrix_names(adapter.model))}",
            )
        layer = copy.deepcopy(adapter.layers[name]).eval()
        random = torch.Generator().manual_seed(stream_key(seed, "merge", name) % 2**63)
        frozen = {id(value) for value in layer.get_base_layer().parameters()}
        for value in layer.parameters():
            if id(value) not in frozen:
                value.add_(torch.randn(value.shape, generator=random) * 0.02)
        try:
            given = torch.randn((2, 3, _width(layer.get_base_layer())), generator=random)
            with torch.random.fork_rng(devices=[]):
                beside = layer(given)
                layer.merge(safe_merge=True)
                merged = layer(given)
            difference = float((beside - merged).abs().max() / beside.abs().max().clamp(min=1e-30))
        except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
            raise ConfigError(f"`{adapter.kind}` cannot be merged into `{name}`: {error}") from error
        if not difference <= _TOLERANCE:
            raise ConfigError(
                f"`{adapter.kind}` cannot be merged into `{name}`: it then puts out values that differ by "
                f"{difference:.1g} of the largest",
                hint="use `--strategy lora`",
            )


def _width(base: Any) -> int:
    """Values that a layer takes in; a transposed matrix (GPT-2) has them on its first axis."""
    transposed = isinstance(base, STAYS_STORED) and not isinstance(base, nn.Linear)
    return int(base.weight.shape[0 if transposed else -1])
