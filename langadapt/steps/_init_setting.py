"""Base tables, new tokenizer and what is given: all that a method is asked with, opened and checked once."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import one
from langadapt.steps._init_config import InitConfig

if TYPE_CHECKING:
    from langadapt.core.progress import Progress
    from langadapt.core.types import TokenMatch
    from langadapt.embed.inputs import Given, InitInputs
    from langadapt.model.tables import Tables
    from langadapt.model.token_table import TokenTable


@dataclass(frozen=True)
class Setting:
    """One base model and one new tokenizer."""

    tables: "Tables"
    target: "TokenTable"
    tokens: "TokenMatch"
    given: "Given"
    seed: int
    progress: "Progress"

    @property
    def table_names(self) -> tuple[str, ...]:
        """`input`, and `head` where it is a table of its own."""
        return ("input",) if self.tables.names.head is None else ("input", "head")

    def inputs(self, table: str) -> "InitInputs":
        """What a method gets for one of the tables."""
        from langadapt.embed.inputs import InitInputs
        from langadapt.steps._init_given import stored_table

        return InitInputs(
            base=self.tables.tokens,
            new_tokens=self.tokens.new_tokens,
            old_rows=self.tables.rows,
            population=self.tables.tokens.text_ids(),
            role="tied" if self.tables.tied else "input" if table == "input" else "head",
            seed=self.seed,
            kept=self.tokens.kept,
            target=self.target,
            given=replace(self.given, table=partial(stored_table, self.tables, table)),
            progress=self.progress,
        )


def setting(config: InitConfig, out: Output, *, undo: bool = False) -> Setting:
    """Open model and tokenizer, and match their tokens. DataError: damaged tables, or a tokenizer that cannot do.

    With `undo` the tokenizer is that of the model's base, and every token of it must have its row in the model.
    """
    from langadapt.model.matching import match
    from langadapt.model.tables import check_values, open_tables
    from langadapt.model.token_table import TokenTable
    from langadapt.steps._init_given import given_by
    from langadapt.steps._init_undo import match_undone

    model = one(out.inputs, "model")
    tables = open_tables(model.path)
    check_values(tables)
    target = TokenTable.from_folder(one(out.inputs, "tokenizer").path)
    if undo:
        found = match_undone(tables.tokens, target, model, tables.rows)
    else:
        found = match(tables.tokens, target, base_rows=tables.rows)
    tokens = _with_overlap(found, tables.tokens, target, config)
    _check_padding(tables, tokens)
    return Setting(tables, target, tokens, given_by(out, tables, target), config.seed, out.progress)


def _with_overlap(found: "TokenMatch", base: "TokenTable", new: "TokenTable", config: InitConfig) -> "TokenMatch":
    """The match with as many rows to be made as `overlap` asks for; ConfigError where ids did not move."""
    from langadapt.model.matching import with_less_overlap

    if config.overlap == "bytes":
        return found
    if not found.renumbered:
        raise ConfigError(
            "this tokenizer extends the base's: all its tokens keep their rows",
            where="overlap",
            hint="leave `overlap` out; it is for tokenizers that replace the base's",
        )
    return with_less_overlap(found, base, new, same_string=config.overlap == "string")


def say_match(here: Setting) -> None:
    """What became of the old tokens, where it is not simply that all are there."""
    tokens, base = here.tokens, here.tables.tokens
    if not tokens.renumbered and not tokens.dropped:
        if not tokens.new_tokens:
            here.progress.warn("the tokenizer has no new tokens: the model is copied as it is")
        return
    found = ", ".join(f"{count:,} by {tier}" for tier, count in tokens.tiers.items())
    here.progress.note(
        f"{len(tokens.kept):,} tokens keep their rows ({found}), {len(tokens.dropped):,} are dropped, "
        f"{len(tokens.new_tokens):,} are new"
    )
    special = [id for id in sorted(base.special_ids) if id not in tokens.kept]
    if special:
        shown = ", ".join(f"`{base.piece(id)}`" for id in special[:5])
        here.progress.warn(f"{len(special)} special tokens of the base are not in the new tokenizer, such as {shown}")


def _check_padding(tables: "Tables", tokens: "TokenMatch") -> None:
    """DataError if the padding token would move in a model that counts its positions from that id."""
    pad = tables.config.get("pad_token_id")
    if tables.positions_from_padding and isinstance(pad, int) and tokens.kept.get(pad) != pad:
        raise DataError(
            f"the padding token would move from id {pad} to {tokens.kept.get(pad, 'none')}; "
            f"`{tables.folder}` counts positions from that id, so every text would move to other positions",
            hint="take a tokenizer whose padding token keeps its id, as extend-vocab and trim-vocab make it",
        )
