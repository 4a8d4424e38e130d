"""How extend-vocab settles its modes: words and their weights, ids to take over, scripts that new tokens must hold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input
from langadapt.steps._vocabulary import count, lang_of, read, texts

if TYPE_CHECKING:
    from langadapt.steps._extend_config import Config
    from langadapt.vocab.curve import Curve, Why
    from langadapt.vocab.guard import Guard
    from langadapt.vocab.slots import Slot
    from langadapt.vocab.tokenizer_file import TokenizerFile

_SCRIPT_SAMPLE_BYTES = 200_000


@dataclass(frozen=True)
class Target:
    """Words to learn from. One occurrence counts `unit` in the smallest language, less in others; 1 for one language.

    `shares` says how much each corpus counts.
    """

    words: Mapping[str, int]
    unit: int
    shares: tuple[float, ...]


def most(config: "Config") -> int:
    """New tokens at most. ConfigError for an automatic size where ids are taken over: how many there are decides."""
    if config.size != "auto":
        return config.size
    if config.mode != "append":
        raise ConfigError(
            f"size `auto` does not go with mode `{config.mode}`",
            hint="give a size; `curve.json` of a run with `--mode append --size auto` helps to choose it",
        )
    return config.max_auto_size


def stopped(curve: "Curve", size: int, why: "Why") -> dict[str, Any]:
    """Where an automatic size stopped and why, as facts and as a sentence."""
    from langadapt.vocab.curve import NEXT

    saving, tokens = curve.next_saving(size), curve.tokens_with(size)
    share = saving / tokens if saving is not None and tokens else 0.0
    left = len(curve.saved) - size
    more = f"the last {left:,} that the text gives" if curve.complete and left < NEXT else f"{NEXT:,} more"
    saves = f"{more} would save {100 * share:.2f} % of the tokens"
    reason = {
        "saving": saves,
        "limit": f"max_auto_size; {saves}",
        "text": "the text gives no more that are frequent enough",
    }[why]
    return {"size": size, "why": why, "next_1000_save": round(share, 6), "said": f"stopped at {size:,}: {reason}"}


def target_of(base: "TokenizerFile", corpora: Sequence[Input], config: "Config", met: set[str], out: Output) -> Target:
    """Count the words of each corpus and weigh them by temperature; DataError for a corpus without text.

    For `met` see `count`.
    """
    from langadapt.vocab import shares

    counted, sizes = [], []
    for corpus in corpora:
        counted.append(count(base, (corpus,), config.max_corpus_bytes, "counting words", out, met))
        if not counted[-1]:
            raise DataError(f"`{corpus.given}` has no text to learn from")
        one_of_many = read(corpus, "train", config.max_corpus_bytes) if len(corpora) > 1 else ()
        sizes.append(sum(len(text.encode()) for text in one_of_many) or 1)
    factors = shares.weights(sizes, config.temperature)
    words = counted[0] if len(counted) == 1 else shares.blend(counted, factors)
    return Target(words, max(factors), tuple(shares.shares(sizes, config.temperature)))


def slots_of(
    config: "Config",
    base: "TokenizerFile",
    folder: Path,
    rows: int,
    guard: "Guard",
    target: Target,
    met: Collection[str],
    out: Output,
) -> "list[Slot] | None":
    """Ids to take over, as many as there are up to `size`; None in mode `append`. DataError if there are none."""
    from langadapt.vocab.freeing import freeable
    from langadapt.vocab.reserved import in_reserve, named_in

    if config.mode == "append":
        return None
    named = named_in(folder, base)
    if config.mode == "reserved":
        slots, in_use = in_reserve(base, rows, named, met=met, pattern=config.reserved_pattern)
        if in_use:
            out.progress.note(f"{in_use:,} reserved tokens stay: a template, a role, a setting or a text uses them")
    else:
        slots = freeable(
            base, guard, target.words, size=most(config), below=config.min_count * target.unit, named=named.ids
        )
    if not slots:
        raise DataError(
            f"mode `{config.mode}`: this tokenizer has no id to give"
            + ("" if config.mode == "reserved" else " that protected and target text can do without"),
            where=base.place,
            hint="`--mode append` adds rows to the table"
            + ("; `--mode same-size` gives up unused tokens" if config.mode == "reserved" else ""),
        )
    if len(slots) < most(config):
        # going on above the last row would change the table's shape, which is what these modes are chosen to avoid
        out.progress.warn(
            f"mode `{config.mode}`: {len(slots):,} ids are free, so there will be {len(slots):,} new tokens at most, "
            f"not {most(config):,}; `--mode append` takes them all"
        )
    return slots[: most(config)]


def scripts_of(config: "Config", corpora: Sequence[Input], guards: Sequence[Input], out: Output) -> frozenset[str]:
    """Scripts that every new token must hold a letter of (none unless `guard_rule` is `script`).

    What is always guarded is in Latin script, so that one never qualifies.
    """
    from langadapt.vocab.scripts import main_scripts, script_name

    own, others = (
        {script for item in items for script in main_scripts(texts(item, "train", _SCRIPT_SAMPLE_BYTES))}
        for items in (corpora, guards)
    )
    free = own - others - {"LATIN"}
    shown = " and ".join(sorted(script_name(script) for script in free))
    if config.guard_rule == "words":
        if free and free == own:
            out.progress.note(
                f"the target is written in {shown}, protected text is not: with -o guard_rule=script all text without "
                f"{shown} letters keeps its ids, not only words that were seen"
            )
        return frozenset()
    if not free:
        raise DataError(
            "guard_rule `script`: the target is written in a script that protected text has too "
            f"({', '.join(sorted(script_name(script) for script in own)) or 'none that is known'})",
            hint="leave it out: the guard then keeps every word that protected text has",
        )
    return frozenset(free)


def by_language(
    base: Any, new: Any, corpora: Sequence[Input], target: Target, held_out: Sequence[Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Share and rates of each target language, by its code (by the corpus's name where two have the same)."""
    from langadapt.vocab import metrics

    found: dict[str, dict[str, Any]] = {}
    for corpus, share, lines in zip(corpora, target.shares, held_out, strict=True):
        name = lang_of(corpus) or Path(corpus.given).name
        found[name if name not in found else f"{name} ({Path(corpus.given).name})"] = {
            "share": round(share, 4),
            "bytes_per_token": metrics.both(metrics.bytes_per_token, base, new, lines),
            "tokens_per_word": metrics.both(metrics.tokens_per_word, base, new, lines),
        }
    return found
