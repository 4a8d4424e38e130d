"""Give every new token a row in the embedding tables, and check the saved model"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import Flag, OptionsOf, input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.registry import Method, load_method
from langadapt.core.types import Estimate, Table
from langadapt.core.units import show_bytes
from langadapt.core.validate import validate
from langadapt.steps._init_auto import AUTO, auto_candidates, check_auto, compare_all, with_auto
from langadapt.steps._init_config import InitConfig, helper_is_learned, helper_needs_text

KIND = "model"
SCHEMA = 2
# Python with torch and transformers loaded, before any weight.
_PROGRAM_BYTES = 530_000_000


class Config(InitConfig):
    """What init-embeddings takes."""

    method: Annotated[str, Flag()] = "position-weighted"
    """How rows of new tokens are made; see `langadapt list methods`. `auto` compares all that it can."""

    method_options: Annotated[dict[str, Any], OptionsOf("embed", "method")] = Field(default_factory=dict)
    """Options of the method, e.g. `method_options.skip_bare_space=false`."""

    head_method: str | None = None
    """Another method for the head of a model whose head is a table of its own; the same method if not given."""

    checks: Literal["full", "files"] = "full"
    """What is checked of the saved model: `files` loads no model, for those that do not fit in memory."""

    undo: Annotated[bool, Flag()] = False
    """From an adapted model back to its base's vocabulary: `tokenizer` is the base's, and no row is made."""

    pad_to_multiple_of: Annotated[int, Field(ge=1)] | None = None
    """Round the number of rows up to a multiple of this; 64 or 128 is faster on some accelerators."""


def run(config: Config, out: Output) -> Artifact:
    """Build the rows, write the model folder, check what was written."""
    from langadapt.embed.assemble import assemble, layout
    from langadapt.embed.checks import check_saved
    from langadapt.embed.rowmap import save_maps
    from langadapt.embed.stored import vocabulary_digest
    from langadapt.model.facts import model_facts
    from langadapt.model.row_origin import write_origin
    from langadapt.model.table_digests import table_digests
    from langadapt.model.tables import open_tables
    from langadapt.steps._compare_result import facts_of
    from langadapt.steps._init_setting import say_match, setting
    from langadapt.steps._init_undo import verdict, with_spare_rows

    given, tokenizer = one(out.inputs, "model"), one(out.inputs, "tokenizer")
    _undone_rows(config, given)
    able = auto_candidates(out.inputs) if config.method == AUTO else None
    methods = {} if able else _methods(config, out.inputs)
    here = setting(config, out, undo=config.undo)
    tables, tokens = here.tables, here.tokens
    if config.head_method is not None and tables.names.head is None:
        what = "no head over its vocabulary" if tables.names.headless else "one table for input and head"
        raise ConfigError(
            f"`head_method` has no use: `{given.given}` has {what}",
            hint="leave it out, or give the method in `method`",
        )
    say_match(here)
    compared = compare_all(here, able, out, config.pad_to_multiple_of) if able else None
    if compared is not None:
        config = config.model_copy(update={"method": compared.choice.name})
        methods = _methods(config, out.inputs)
    else:
        _say_unused(methods, out)
    maps = {}
    for table in here.table_names:
        method, options = methods[table]
        maps[table] = method(here.inputs(table), options)
    plan = layout(tokens, config.pad_to_multiple_of)
    plan = with_spare_rows(plan, given) if config.undo else plan
    assemble(tables, plan, maps, tokenizer.path, out.folder, progress=out.progress)
    save_maps(maps, out.folder)
    if not plan.plain:
        write_origin(out.folder, plan.origin())
    found = check_saved(tables, out.folder, plan, maps, out.progress, load=config.checks == "full")
    if found.duplicate_rows and config.method != "mean":
        out.progress.note(f"{found.duplicate_rows} new tokens share their row with another until training parts them")
    unspelled = maps["input"].mean_lines()
    if unspelled and not maps["input"].noise.any() and config.method != "mean":
        out.progress.warn(f"{unspelled} new tokens have no old pieces; they got the mean row (see provenance.jsonl)")
    facts = {
        **model_facts(out.folder),
        "tied": tables.tied,
        "method": "undo" if config.undo else config.method,
        "head_method": "undo" if config.undo else config.head_method or config.method,
        "base_digest": given.digest,
        "base_tables": table_digests(tables),
        "base_vocabulary": vocabulary_digest(tables.tokens, tables.tokens.text_ids()),
        "old_rows": plan.old_rows,
        "added": len(plan.new_ids),
        "dropped": len(plan.dropped),
        "padding_rows": len(plan.padding),
        "duplicate_rows": found.duplicate_rows,
        "without_pieces": unspelled,
        "reasons": maps["input"].reasons(),
        "measured": {table: dict(rows.measured) for table, rows in maps.items() if rows.measured},
        "head_mass_nats_mean": found.head_mass_mean,
        "head_mass_nats_highest": found.head_mass_highest,
        "checks": len(found.checks),
    }
    if config.undo:
        facts["undone"] = verdict(open_tables(out.folder), given, plan, out)
    return out.commit(facts if compared is None else facts | {"auto": facts_of(compared)})


def _say_unused(methods: Mapping[str, tuple[Method, Any]], out: Output) -> None:
    from langadapt.embed.inputs import unused

    needs = [need for method, _ in methods.values() for need in method.facts.needs]
    learns = helper_is_learned(out.inputs)
    for name in unused(needs, out.inputs):
        if name == "corpus" and learns:
            continue
        out.progress.warn(f"`{name}` was given, and `{methods['input'][0].name}` does not look at it")
    if out.inputs.get("source_text") is not None:
        out.progress.warn("`source_text` was given, and only `--method auto` looks at it")


def _methods(config: Config, given: Inputs) -> dict[str, tuple[Method, Any]]:
    """Method and options per table. With two methods, the options belong to the first.

    ConfigError if a method needs what was not given.
    """
    from langadapt.embed.inputs import check_needs

    method = load_method("embed", config.method)
    options = validate(method.options, config.method_options, what=f"options of `{method.name}`", above=Config)
    chosen = {"input": (method, options), "head": (method, options)}
    if config.head_method is not None and config.head_method != config.method:
        head = load_method("embed", config.head_method)
        chosen["head"] = (head, head.options())
    helper_is_learned(given)
    for chosen_method, _ in chosen.values():
        check_needs(chosen_method.name, chosen_method.facts.needs, given)
    return chosen


def check(config: Config) -> None:
    """ConfigError for options that the method does not have, or has no use for, and if it needs what was not given."""
    from langadapt.embed.inputs import check_needs

    if config.undo:
        _check_undo(config)
    elif config.method == AUTO:
        check_auto(config.method_options, config.head_method)
    given = {item.name: getattr(config, item.name) for item in input_fields(Config)}
    if given["helper"] == "train":
        helper_needs_text(given["corpus"])
    for name in dict.fromkeys((config.method, config.head_method or config.method)):
        if name != AUTO and not config.undo:
            method = load_method("embed", name)
            if name == config.method:
                validate(method.options, config.method_options, what=f"options of `{name}`", above=Config)
            check_needs(name, method.facts.needs, given)


def _undone_rows(config: Config, given: Input) -> int | None:
    """Rows of the base's table if an undo is asked for. ConfigError: the model does not say what it was made from."""
    from langadapt.steps._init_undo import old_rows_of

    if not config.undo:
        return None
    return old_rows_of(given)


def _check_undo(config: Config) -> None:
    idle = [name for name in ("head_method", "pad_to_multiple_of", "method_options") if getattr(config, name)]
    idle += ["method"] if config.method == AUTO else []
    idle += ["overlap"] if config.overlap != "bytes" else []
    if idle:
        raise ConfigError(f"`{idle[0]}` has no use: an undo makes no rows", where="undo", hint="leave it out")


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Size of the new model from the headers of the base and the number of new tokens; `auto` costs a comparison."""
    if config.method == AUTO:
        able = auto_candidates(inputs)
        return with_auto(_writing(config, inputs, {}), able, inputs)
    return _writing(config, inputs, _methods(config, inputs))


def _writing(config: Config, inputs: Inputs, methods: Mapping[str, tuple[Method, Any]]) -> Estimate:
    """The price of one method and of the model folder."""
    model, tokenizer = one(inputs, "model"), one(inputs, "tokenizer")
    base = _model_facts(model)
    old_rows = _undone_rows(config, model)
    size = _new_size(model, tokenizer, base) if old_rows is None else (old_rows, 0)
    from langadapt.model.facts import table_width
    from langadapt.model.weights import BYTES_PER_VALUE
    from langadapt.steps._init_given import learning_seconds

    if "parameters" not in base or size is None:
        return Estimate(facts={"method": config.method})
    rows, added = size
    step = config.pad_to_multiple_of or 1
    rows = -(-rows // step) * step
    tables = 1 if base["tied"] else 2
    parameters = int(base["parameters"]) + (rows - int(base["rows"])) * table_width(base) * tables
    width = BYTES_PER_VALUE.get(str(base["dtype"]), 4)
    weights = parameters * width
    table = rows * table_width(base)
    # the loaded model and its head in float32; with `files` the tables alone, some three times over
    held = weights + 4 * table if config.checks == "full" else 4 * tables * width * table
    keys = ("layers", "hidden_size", "tied", "dtype")
    facts = {key: base.get(key) for key in keys} | {
        **({"table_width": base["table_width"]} if "table_width" in base else {}),
        "parameters": parameters,
        "rows": rows,
        "old_rows": int(base["rows"]),
        "added": added,
        "method": config.method,
    }
    rate = (tokenizer.facts.get("bytes_per_token") or {}).get("adapted")
    if rate and tokenizer.facts.get("lang"):
        # so that mix and cpt are priced with the tokens to come and not with an average language
        facts["expected_bytes_per_token"] = {tokenizer.facts["lang"]: rate}
    return Estimate(
        # program start, the two loads, writing and hashing; see docs/init-embeddings.md
        seconds=9 + 9 * weights / 1e9 + added / 20_000 + learning_seconds(methods.values(), inputs),
        memory_bytes=_PROGRAM_BYTES + held,
        disk_bytes=weights + 25_000_000,
        facts=facts,
        rows=(
            ("method", config.method),
            ("rows", f"{int(base['rows']):,} -> {rows:,}"),
            ("parameters", f"{parameters:,}"),
            ("model files", show_bytes(weights)),
        ),
    )


def _model_facts(model: Input) -> Mapping[str, Any]:
    if "parameters" in model.facts or not model.exists:
        return model.facts
    from langadapt.model.facts import model_facts

    return model_facts(model.path)


def _new_size(model: Input, tokenizer: Input, base: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows that the new tokenizer needs, and how many of its tokens are new; None if it cannot be known yet."""
    if "rows" not in base:
        return None
    old_rows = int(base["rows"])
    facts = tokenizer.facts
    if "added" in facts and not facts.get("renumbered"):
        size = facts.get("vocabulary_after", _size(model.path, base) + int(facts["added"]))
        return max(old_rows, int(size)), int(facts["added"])
    if not (tokenizer.exists and model.exists):
        known = "added" in facts and "vocabulary_after" in facts
        return (int(facts["vocabulary_after"]), int(facts["added"])) if known else None
    from langadapt.model.matching import match
    from langadapt.model.token_table import TokenTable

    found = match(TokenTable.from_folder(model.path), TokenTable.from_folder(tokenizer.path), base_rows=old_rows)
    return found.new_rows, len(found.new_tokens)


def _size(folder: Path, base: Mapping[str, Any]) -> int:
    """Ids of the base tokenizer; its rows while the model does not exist."""
    if not (folder / "tokenizer.json").is_file():
        return int(base["rows"])
    from langadapt.model.token_table import TokenTable

    return TokenTable.from_folder(folder).size


def table(artifact: Artifact) -> Table:
    """What a person wants to see after the step."""
    facts = artifact.facts
    chosen = " (auto, see comparison.json)" if "auto" in facts else ""
    rows = (
        ("method", f"{facts['method']}{chosen}"),
        ("rows", f"{facts['old_rows']:,} -> {facts['rows']:,}"),
        ("new tokens", f"{facts['added']:,}"),
        *([("dropped tokens", f"{facts['dropped']:,}")] if facts["dropped"] else []),
        ("tokens without old pieces", f"{facts['without_pieces']:,}"),
        ("tokens that share a row", f"{facts['duplicate_rows']:,}"),
        ("parameters", f"{facts['parameters']:,}"),
    )
    if facts["head_mass_nats_mean"] is not None:
        rows += (("nats a token moved from old text to new rows", f"{facts['head_mass_nats_mean']:.4f}"),)
    note = f"{facts['checks']} checks on the saved files passed or are explained in {artifact.path / 'checks.json'}"
    return Table("New rows", ("", "value"), rows, (note,))
