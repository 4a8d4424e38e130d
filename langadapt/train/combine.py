"""What fits together: a model and its data, and the options of a run."""

from collections.abc import Mapping
from typing import Any, Protocol

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input
from langadapt.core.io import sha256_file
from langadapt.model.facts import check_positions, model_facts
from langadapt.model.kinds import require_causal


class Wishes(Protocol):
    """The options that exclude each other."""

    @property
    def stages(self) -> Any: ...
    @property
    def branch_from(self) -> str | None: ...
    @property
    def strategy(self) -> str: ...
    @property
    def strategy_options(self) -> Mapping[str, Any]: ...
    @property
    def weights(self) -> str: ...
    @property
    def compute(self) -> str: ...
    @property
    def lr_probe(self) -> bool: ...
    @property
    def icl_probe(self) -> bool: ...
    @property
    def max_icl_loss(self) -> float | None: ...


class Narrow(Protocol):
    """The options that need low-bit arithmetic."""

    @property
    def weights(self) -> str: ...
    @property
    def moments(self) -> str: ...


def check_options(wishes: Wishes) -> None:
    """ConfigError for options that exclude each other whatever the model is."""
    if wishes.stages and wishes.branch_from is not None:
        raise ConfigError("`stages` and `branch_from` cannot be combined: where a stage ends depends on all steps")
    if wishes.stages and wishes.strategy != "full":
        raise ConfigError("with `stages` the strategies are theirs", hint="leave `--strategy` out")
    if wishes.stages and wishes.strategy_options:
        raise ConfigError(
            "with `stages` the options of strategies are theirs",
            hint="write `strategy_options` beside the `strategy` of a stage",
        )
    if wishes.max_icl_loss is not None and not wishes.icl_probe:
        raise ConfigError("`max_icl_loss` limits what the probe finds", hint="give `--icl-probe` too")
    if wishes.weights == "bf16" and wishes.compute == "fp32":
        raise ConfigError("weights in bf16 are multiplied in bf16", hint="leave `--compute` out")
    if wishes.lr_probe and (wishes.stages or wishes.branch_from is not None):
        raise ConfigError(
            "`lr_probe` begins at the first step with what moves all along: not with `stages` or `branch_from`",
            hint="try the rates without them, then give `--learning-rate`",
        )


def check_combination(wishes: Narrow, *, adapter: bool) -> None:
    """ConfigError for options that exclude an adapter, or need a package that is not there."""
    lowbit = wishes.weights == "bf16" or wishes.moments != "fp32"
    if lowbit and adapter:
        raise ConfigError("an adapter is small: keep its `weights` and `moments` in fp32")
    if lowbit:
        from langadapt.train.lowbit import check_installed

        check_installed()


def check_fit(model: Input, data: Input, base: Mapping[str, Any]) -> None:
    """DataError if the model is not causal, or the data were not made for it: tokenizer, rows, length of blocks."""
    require_causal(model.path, "`cpt`")
    tokenizer = model.path / "tokenizer.json"
    if data.facts.get("tokenizer_digest") != (sha256_file(tokenizer) if tokenizer.is_file() else None):
        raise DataError(
            f"`{data.given}` was tokenised with another tokenizer than that of `{model.given}`",
            hint="run `langadapt mix` with this model",
        )
    if int(data.facts["vocabulary"]) > int(base["rows"]):
        raise DataError(f"`{data.given}` is for {data.facts['vocabulary']:,} rows, the model has {base['rows']:,}")
    check_positions(
        model.path,
        int(data.facts["block_tokens"]),
        f"blocks of `{data.given}` have",
        "make it again with shorter blocks: langadapt mix ... --block-tokens {}",
    )


def facts_of(model: Input) -> Mapping[str, Any]:
    """What is known of a model before training: of its files where it exists. DataError if it is not causal."""
    if not model.exists:
        return model.facts
    require_causal(model.path, "`cpt`")
    return model.facts if "parameters" in model.facts else {**model.facts, **model_facts(model.path)}
