"""What must hold for the model as it was saved: read back from disk, compared with the base model."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.io import pretty_json, read_json_object, write_durably
from langadapt.core.progress import Progress
from langadapt.embed.assemble import Layout
from langadapt.embed.identity import identity_checks
from langadapt.embed.rowmap import RowMap
from langadapt.model.facts import position_limit
from langadapt.model.kinds import generates, kind_of
from langadapt.model.load import load_any_model
from langadapt.model.save import chat_template
from langadapt.model.tables import Tables, open_tables
from langadapt.model.weights import bits

CHECKS_FILE = "checks.json"
# Adding rows changes how the matrix product is split: 9e-6 was seen with 53k rows in float32, 2 threads.
_HEAD_TOLERANCE = 1e-4
# Rows of a table that are compared at a time: 8,192 x 8,192 x 4 bytes = 268 MB.
_ROWS_AT_A_TIME = 8192
# Any text of old tokens would do; these hold several scripts, digits and code.
_TEXTS = (
    "The committee published its report in 1998, and most of the members agreed with the main findings.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Wir gehen am Morgen über die alte Brücke. Сегодня хорошая погода. 今天天气很好。",
)


@dataclass(frozen=True)
class Check:
    """One check: a failed one that `must_hold` stops the step, the others are reported."""

    name: str
    ok: bool
    value: Any = None
    must_hold: bool = True


@dataclass(frozen=True)
class Findings:
    """All checks, and how much probability the new rows take from old text: nats a token, mean and highest.

    Both are None for a model without a head over its vocabulary.
    """

    checks: tuple[Check, ...]
    head_mass_mean: float | None
    head_mass_highest: float | None
    duplicate_rows: int


def check_saved(
    base: Tables,
    folder: Path,
    plan: Layout,
    maps: Mapping[str, RowMap],
    progress: Progress | None = None,
    *,
    load: bool = True,
) -> Findings:
    """Check the saved folder, write `checks.json` into it, and raise LangadaptError if a must-hold check failed.

    Without `load` no model is loaded, for those that do not fit in memory: what they compute is not compared, and files
    that were copied whole are compared by their headers only.
    """
    saved = open_tables(folder)
    checks = [
        Check("tables, config and tokenizer agree", saved.rows == plan.rows, saved.rows),
        Check("rows were not lost", _enough(base, saved, plan)),
        Check("input and head are tied as before", saved.tied == base.tied, saved.tied),
        _generation_ids(saved, plan),
        *(
            Check(name, not broken, broken[:8] or None, must)
            for name, broken, must in identity_checks(base, saved, plan)
        ),
        _chat_template(base.folder, folder),
        _untouched(base, saved, whole=load),
    ]
    duplicates = 0
    tables = {"input": (base.stored.input, saved.stored.input), "head": (base.stored.head, saved.stored.head)}
    for table, (before, after) in tables.items():
        if before is not None and after is not None:
            old, new = base.weights.read(before), saved.weights.read(after)
            checks += _rows(table, old, new, plan, maps[table])
            duplicates = max(duplicates, sum(map(len, maps[table].duplicates())))
    if (biases := (base.read_bias(), saved.read_bias()))[0] is not None and biases[1] is not None:
        checks.append(Check("bias: old values are the same", same_bits(*_kept(biases[0], biases[1], plan))))
    if load:
        mass, compared = _compare_models(base, saved, plan, progress or Progress())
    else:
        mass, compared = torch.empty(0), [Check("models were not loaded: hidden states are not compared", True)]
    checks += compared
    rounded: tuple[float | None, float | None] = None, None
    if len(mass):
        rounded = round(float(mass.mean()), 4), round(float(mass.max()), 4)
        checks.append(Check("probability moved to new rows, nats a token", True, rounded, must_hold=False))
    insist(checks, folder)
    return Findings(tuple(checks), *rounded, duplicates)


def insist(checks: Sequence[Check], folder: Path) -> None:
    """Write `checks.json`; LangadaptError if a check that must hold failed."""
    write_durably(folder / CHECKS_FILE, pretty_json([asdict(check) for check in checks]))
    failed = [check.name for check in checks if check.must_hold and not check.ok]
    if failed:
        raise LangadaptError(f"the saved model failed its checks: {'; '.join(failed)}")


def usual_norms(table: str, norms: torch.Tensor, before: torch.Tensor) -> Check:
    """How many of `norms` stand out from those of old rows."""
    low, high = (float(torch.quantile(before[: 2**24], share)) for share in (0.01, 0.99))
    outside = int(((norms < low / 2) | (norms > 2 * high)).sum())
    return Check(f"{table}: norms between half the 1st and twice the 99th percentile", outside == 0, outside, False)


def _enough(base: Tables, saved: Tables, plan: Layout) -> bool:
    return saved.rows >= saved.tokens.size and (plan.renumbered or saved.rows >= base.rows)


def _generation_ids(saved: Tables, plan: Layout) -> Check:
    path = saved.folder / "generation_config.json"
    content = read_json_object(path) if path.is_file() else {}
    ids: list[int] = []
    for key, value in content.items():
        if key.endswith("token_id") and value is not None:
            ids += value if isinstance(value, list) else [value]
    unsuppressed = set(plan.padding) - set(content.get("suppress_tokens") or ())
    unsuppressed = unsuppressed if generates(saved.config) else set()
    return Check("generation config names rows that exist", all(id < plan.rows for id in ids) and not unsuppressed)


def _chat_template(base: Path, folder: Path) -> Check:
    before, after = chat_template(base), chat_template(folder)
    return Check("chat template is the base's", before == after, must_hold=after is None)


def _untouched(base: Tables, saved: Tables, *, whole: bool) -> Check:
    """Is everything but the tables as it was? Without `whole` files without a table are not read: they were copied."""
    rewritten = {saved.weights.tensors[name].file.name for name in saved.own_tensors()}

    def same(name: str) -> bool:
        old, new = base.weights.tensors.get(name), saved.weights.tensors[name]
        if old is None or (old.file.name, old.dtype, old.shape) != (new.file.name, new.dtype, new.shape):
            return False
        if not whole and new.file.name not in rewritten:
            return old.file.stat().st_size == new.file.stat().st_size
        return same_bits(base.weights.read(name), saved.weights.read(name))

    changed = [name for name in sorted(saved.weights.tensors) if name not in saved.own_tensors() and not same(name)]
    lost = base.weights.tensors.keys() - saved.weights.tensors.keys() - {"lm_head.weight"}
    return Check("all other tensors are the same bytes", not changed and (saved.tied or not lost), changed[:8] or None)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal shape, dtype and bits: -0.0 differs from 0.0, and NaN equals itself."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(bits(first), bits(second))


def _same_rows(old: torch.Tensor, new: torch.Tensor, plan: Layout) -> bool:
    """The kept rows, a block at a time: two whole copies would be as large as both tables."""
    starts = range(0, len(plan.kept_old), _ROWS_AT_A_TIME)
    parts = [slice(start, start + _ROWS_AT_A_TIME) for start in starts]
    return old.dtype == new.dtype and all(
        same_bits(old[plan.kept_old[part]], new[plan.kept_new[part]]) for part in parts
    )


def _norms(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    starts = range(0, len(ids), _ROWS_AT_A_TIME)
    return torch.cat([table[ids[start : start + _ROWS_AT_A_TIME]].float().norm(dim=1) for start in starts])


def _rows(table: str, old: torch.Tensor, new: torch.Tensor, plan: Layout, rows: RowMap) -> list[Check]:
    finite = all(
        bool(torch.isfinite(new[start : start + _ROWS_AT_A_TIME]).all())
        for start in range(0, len(new), _ROWS_AT_A_TIME)
    )
    checks = [
        Check(f"{table}: old rows are the same bits", _same_rows(old, new, plan)),
        Check(f"{table}: new rows are finite", finite),
    ]
    if not plan.new_ids:
        return checks
    added = torch.tensor(plan.new_ids)
    norms, before = _norms(new, added), _norms(old, torch.from_numpy(rows.population))
    equal = len(added) - _distinct(new, added)
    return [
        *checks,
        Check(f"{table}: no new row is zero", bool((norms > 0).all())),
        usual_norms(table, norms, before),
        Check(f"{table}: new rows differ from each other", equal == 0, equal, False),
    ]


def _distinct(table: torch.Tensor, ids: torch.Tensor) -> int:
    """How many of these rows differ as stored, by digests of 16 bytes."""
    seen: set[bytes] = set()
    for start in range(0, len(ids), _ROWS_AT_A_TIME):
        rows = bits(table[ids[start : start + _ROWS_AT_A_TIME]]).numpy()
        seen.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    return len(seen)


def old_sequences(base: Tables, plan: Layout) -> list[list[int]]:
    """Texts in old tokens, and one sequence of ids spread over the old vocabulary; without tokens that were dropped."""
    ids = [id for id in base.tokens.text_ids().tolist() if id in plan.kept_ids]
    ids = ids or sorted(plan.kept_ids)  # no text token may have kept its row: then the special ones must do
    spread: list[int] = ids[:: max(1, len(ids) // 64)][:64]
    spelled = [[id for id in base.tokens.spell(text.encode()) if id in plan.kept_ids] for text in _TEXTS]
    most = position_limit(base.folder)  # learned positions have no row for a later token
    if most is not None and base.positions_from_padding:
        most -= int(base.config.get("pad_token_id") or 0) + 1
    return [sequence[:most] for sequence in filter(None, [*spelled, spread])]


def _kept(before: torch.Tensor, after: torch.Tensor, plan: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """The entries of old tokens, before and after."""
    return before[plan.kept_old], after[plan.kept_new]


def _hidden(folder: Path, dtype: torch.dtype, sequences: Sequence[Sequence[int]]) -> tuple[list[torch.Tensor], bool]:
    """What the head is given [1, tokens, width] for each sequence (the last hidden states where there is no head or
    nothing stands between), and whether the loaded model's tables share memory.

    An encoder-decoder model reads each sequence on both sides.
    """
    model = load_any_model(folder, dtype=dtype)
    kind = kind_of(read_json_object(folder / "config.json"))
    head = model.get_output_embeddings()
    shared = head is not None and model.get_input_embeddings().weight.data_ptr() == head.weight.data_ptr()
    whole = head is not None and kind != "causal"
    seen: list[torch.Tensor] = []
    states = []
    if whole:
        # the transform of BERT's head and T5's scaling stand before the head
        head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    body: Callable[..., Any] = model if whole else model.base_model
    with torch.inference_mode():
        for ids in sequences:
            given = {"input_ids": torch.tensor([ids])}
            given |= {"decoder_input_ids": given["input_ids"]} if kind == "seq2seq" else {}
            found = body(**given) if kind == "body" or kind == "masked" else body(**given, use_cache=False)
            states.append(seen[-1] if whole else found.last_hidden_state)
    # models of transformers hold cycles; this frees their memory now, a garbage collection would take a second
    model.to("meta")
    return states, shared


def _compare_models(base: Tables, saved: Tables, plan: Layout, progress: Progress) -> tuple[torch.Tensor, list[Check]]:
    """Load both models, one after the other, and compare what they compute on old tokens."""
    dtype: torch.dtype = getattr(torch, base.dtype)
    sequences = old_sequences(base, plan)
    task = progress.start("checking the saved model", total=2, unit="models")
    before, _ = _hidden(base.folder, dtype, sequences)
    if not all(bool(torch.isfinite(states).all()) for states in before):
        raise DataError(
            f"`{base.folder}` computes NaN or infinity on plain text in {base.dtype}",
            hint="its weights are damaged, or too large for this dtype: copy it again, or take it in another dtype",
        )
    task.advance()
    after, shared = _hidden(saved.folder, dtype, [[plan.kept_ids[id] for id in ids] for ids in sequences])
    task.advance()
    task.finish()
    hidden = all(same_bits(first, second) for first, second in zip(before, after, strict=True))
    checks = [
        Check("old text: hidden states are the same bits", hidden),
        Check("input and head share memory after loading, if tied", shared == base.tied, shared),
    ]
    if base.names.headless:
        return torch.empty(0), checks
    mass, compared = _compare_logits(base, saved, plan, before, after)
    return mass, [*checks, *compared]


def _compare_logits(
    base: Tables, saved: Tables, plan: Layout, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, list[Check]]:
    """The two heads on what they are given for old text."""
    heads = base.read_head(), saved.read_head()
    biases = base.read_bias(), saved.read_bias()
    kept = plan.kept_old, plan.kept_new
    kept_bias = [None if bias is None else bias[rows] for bias, rows in zip(biases, kept, strict=True)]
    sliced, whole, mass = True, True, []
    for first, second in zip(before, after, strict=True):
        states = first[0].float(), second[0].float()
        old_logits, new_logits = (
            F.linear(state, head[rows], bias)
            for state, head, rows, bias in zip(states, heads, kept, kept_bias, strict=True)
        )
        sliced &= torch.equal(old_logits, new_logits)
        everything = F.linear(states[1], heads[1], biases[1])
        scale = max(1.0, float(old_logits.abs().max()) / 100)
        difference = float((everything[:, plan.kept_new] - old_logits).abs().max())
        whole &= difference <= _HEAD_TOLERANCE * scale
        used = torch.ones(plan.rows, dtype=torch.bool)
        used[list(plan.padding)] = False
        mass.append(torch.logsumexp(everything[:, used], 1) - torch.logsumexp(old_logits, 1))
    if not mass:
        return torch.zeros(1), []
    return torch.cat(mass[:-1] or mass), [
        Check("old text: logits of old rows are the same bits", sliced),
        Check("old text: logits through the whole head agree within 1e-4", whole),
    ]
