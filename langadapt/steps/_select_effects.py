"""The effect matrix of `select`: held-out text of each language, scored without the neurons of each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.languages import normalise
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from langadapt.model.score import ScoredText
    from langadapt.select.selection import Selection

_SEGMENT_BYTES = 300


class Wishes(Protocol):
    """What is asked for."""

    @property
    def seed(self) -> int: ...
    @property
    def effects(self) -> bool: ...
    @property
    def effects_bytes(self) -> int: ...


def check_effects(effects: bool, text: Mapping[str, str]) -> None:
    """ConfigError for an effect matrix without text, or text without one."""
    if effects and not text:
        raise ConfigError(
            "`effects` are measured on text of each language", where="effects", hint="give it: `--text hu=CORPUS`"
        )
    if text and not effects:
        raise ConfigError("`--text` is for an effect matrix", where="text", hint="add `-o effects=true`")
    names = [normalise(name) for name in text]
    if len(set(names)) < len(names):
        raise ConfigError("two texts are of one language", where="text")


def with_effects(
    selection: "Selection", wishes: Wishes, inputs: Inputs, model: Input, progress: Progress
) -> "Selection":
    """The selection, with the effect matrix of its neurons. ConfigError: its method chooses no neurons of languages."""
    from langadapt.model.anatomy import anatomy
    from langadapt.model.compute import choose_device
    from langadapt.model.load import load_model, load_tokenizer
    from langadapt.model.score import bits_per_byte, score_texts
    from langadapt.model.separator import candidates
    from langadapt.select.effects import effects

    sets = selection.found.get("neurons")
    if not sets:
        raise ConfigError(
            f"`{selection.method}` chooses no neurons of languages, so there is nothing to silence",
            where="effects",
            hint="choose by `lape`, `activation-gap` or `taylor`",
        )
    texts = _texts(inputs, wishes)
    tokenizer = load_tokenizer(model.path)
    known = list(candidates(tokenizer).values())
    if not known:
        raise ConfigError(f"the tokenizer of `{model.given}` has no token that could stand before a text")
    loaded = load_model(model.path).to(choose_device())
    parts = anatomy(loaded).need_neurons()

    def score() -> dict[str, float]:
        return {lang: bits_per_byte(score_texts(loaded, tokenizer, own, prefix_id=known[0]))
                for lang, own in texts.items()}  # fmt: skip

    task = progress.start("silencing neurons", total=1 + 2 * len(sets), unit="passes")
    found = effects(loaded, parts, sets, score, seed=wishes.seed, progress=task)
    task.finish()
    return replace(selection, found={**selection.found, "effects": found})


def text_of(inputs: Inputs) -> dict[str, Input]:
    """Text to score on, by language."""
    given = inputs.get("text")
    return {normalise(name): item for name, item in given.items()} if isinstance(given, dict) else {}


def _texts(inputs: Inputs, wishes: Wishes) -> "dict[str, list[ScoredText]]":
    from langadapt.corpus.store import documents
    from langadapt.evaluate.segments import MIN_SEGMENTS, choose_segments

    found: dict[str, Any] = {}
    for lang, item in sorted(text_of(inputs).items()):
        held = list(documents(item.path, "held-out"))
        if not held:
            raise DataError(
                f"nothing of `{item.given}` is held out, so there is no text to score on",
                hint=f"hold some out: langadapt prepare TEXT --lang {lang} --held-out-share 0.1 --out DIR",
            )
        chosen = choose_segments(
            held, set_bytes=wishes.effects_bytes, segment_bytes=_SEGMENT_BYTES, seed=wishes.seed, name=lang,
            wanted=MIN_SEGMENTS,
        )  # fmt: skip
        found[lang] = chosen.scored_texts(0)
    return found


def price(wishes: Wishes, inputs: Inputs, size: tuple[int, int], langs: int) -> tuple[float, int]:
    """Seconds and bytes of memory: all text is read once, and twice for each of `langs` sets."""
    from langadapt.evaluate.price import model_cost
    from langadapt.model.compute import matrix_rate

    read = wishes.effects_bytes * len(text_of(inputs))
    cost = model_cost(size, 3.0, read, "fp32", matrix_rate("fp32"))
    return cost.seconds * (1 + 2 * langs), cost.memory_bytes
