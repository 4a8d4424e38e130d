"""What the meter adds up, against sums over single windows made by hand; and what it refuses to count."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.model.anatomy import Anatomy, anatomy
from langadapt.select.measure import Meter, Window, batches
from langadapt.select.stability import specific_layers, stability
from langadapt.select.statistics import LanguageStatistics, Statistics
from langadapt.select.windows import Cut, Read, windows
from langadapt.select.wiring import _by_sign, activation
from tests.fixtures.tiny import tiny_config

ROWS, WIDTH = 64, 16


def made(arch: str, **changes: Any) -> tuple[Any, Anatomy]:
    config = tiny_config(arch, rows=ROWS, width=WIDTH, layers=2, tied=False)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model, anatomy(model)


def some_windows(count: int = 7, longest: int = 12) -> list[Window]:
    random = np.random.Generator(np.random.Philox(key=3))
    found = []
    for number in range(count):
        length = longest - number % 4
        ids = random.integers(ROWS, size=length).astype(np.int32)
        found.append(Window(ids, random.random(length) < 0.8))
    return found


def measure(
    model: Any, parts: Anatomy, chosen: list[Window], batch: int, *, taylor: bool = False
) -> LanguageStatistics:
    meter = Meter(model, parts, taylor=taylor)
    for first in range(0, len(chosen), batch):
        meter.add(chosen[first : first + batch])
    return meter.found("hu")


def keep(module: Any, name: str, read: dict[str, torch.Tensor], wrote: dict[str, torch.Tensor]) -> Any:
    """Keep what a module reads and writes, with its gradient."""

    def hook(module: Any, given: Any, result: Any) -> None:
        read[name], wrote[name] = given[0], result
        if given[0].requires_grad:
            given[0].retain_grad()

    return module.register_forward_hook(hook)


def oracle(model: Any, parts: Anatomy, chosen: list[Window], *, taylor: bool) -> dict[str, dict[Any, Any]]:
    """Window by window, without padding: the values themselves are kept, and added up token by token in float64."""
    kinds: dict[str, dict[Any, Any]] = {
        kind: {} for kind in ("inputs", "norms", "positive", "sums", "squares", "active", "taylor")
    }
    act = activation(parts.activation)
    assert act is not None
    for number, window in enumerate(chosen):
        ids = torch.from_numpy(window.ids).long()[None]
        read: dict[str, torch.Tensor] = {}
        wrote: dict[str, torch.Tensor] = {}
        names = {part.module: part.weight for part in (*parts.matrices, *parts.norms)}
        handles = [keep(model.get_submodule(module), name, read, wrote) for module, name in names.items()]
        # all parameters have gradients here, none has in the meter
        model.requires_grad_(True)
        logits = model(input_ids=ids, use_cache=False).logits
        if taylor:
            nats = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
            nats[torch.from_numpy(window.counts[1:])].sum().backward()
        for handle in handles:
            handle.remove()
        model.zero_grad()

        def add(kind: str, key: Any, values: torch.Tensor, window: Window = window, half: int = number % 2) -> None:
            rows = values.detach().double().numpy().reshape(len(window.ids), -1)
            total = kinds[kind].setdefault(key, np.zeros((2, rows.shape[1])))
            for row, counts in zip(rows, window.counts, strict=True):
                total[half] += row if counts else 0

        for matrix in parts.matrices:
            add("inputs", matrix.weight, read[matrix.weight] ** 2)
        for norm in parts.norms:
            squares = read[norm.weight] ** 2
            if squares.ndim == 4:  # of each head; Gemma 3 has the heads before the tokens
                squares = squares.mean(2 if squares.shape[1] == len(window.ids) else 1)
            add("norms", norm.weight, squares)
        for one in parts.neurons:
            gate = wrote[one.gate.weight][..., : one.width]
            add("positive", one.layer, gate > 0)
            add("sums", one.layer, gate)
            add("squares", one.layer, gate**2)
            add("active", one.layer, act(gate))
            if taylor:
                h = read[one.down.weight]
                add("taylor", one.layer, (h * h.grad).abs())
    return kinds


@pytest.mark.parametrize("taylor", [False, True], ids=["forward", "taylor"])
@pytest.mark.parametrize("arch", ["llama", "gpt2", "phi3", "opt", "bloom", "qwen3", "gemma3"])
def test_padded_batches_give_what_single_windows_give(arch: str, taylor: bool) -> None:
    model, parts = made(arch)
    chosen = some_windows()
    found, expected = measure(model, parts, chosen, 3, taylor=taylor), oracle(model, parts, chosen, taylor=taylor)
    assert found.tokens.tolist() == [sum(int(one.counts.sum()) for one in chosen[half::2]) for half in (0, 1)]
    for kind, by_key in expected.items():
        values = getattr(found, kind)
        assert values.keys() == by_key.keys(), kind
        for key, value in by_key.items():
            if kind == "positive":
                assert (values[key] == value).all() and values[key].dtype == np.int64
            else:
                np.testing.assert_allclose(values[key], value, rtol=2e-4, atol=1e-4, err_msg=f"{kind} {key}")
    rates = found.rates()
    assert rates.shape == (2, parts.neurons[0].width) and 0 < rates.mean() < 1


def test_the_order_of_batches_does_not_matter() -> None:
    model, parts = made("llama")
    chosen = some_windows(8)
    straight = measure(model, parts, chosen, 2)
    turned = measure(model, parts, [chosen[at] for at in (6, 7, 4, 5, 2, 3, 0, 1)], 2)
    assert (straight.tokens == turned.tokens).all()
    for layer in straight.positive:
        assert (straight.positive[layer] == turned.positive[layer]).all()
        np.testing.assert_allclose(straight.squares[layer], turned.squares[layer], rtol=1e-5)
    for name in straight.inputs:
        np.testing.assert_allclose(straight.inputs[name], turned.inputs[name], rtol=1e-5)


def test_going_on_is_bit_for_bit_one_run() -> None:
    model, parts = made("llama")
    chosen = some_windows(8)
    whole = measure(model, parts, chosen, 2)
    first = Meter(model, parts)
    for at in (0, 2):
        first.add(chosen[at : at + 2])
    second = Meter(model, parts)
    second.start(first.found("hu"), first.windows)
    for at in (4, 6):
        second.add(chosen[at : at + 2])
    found = second.found("hu")
    for kind in ("positive", "sums", "squares", "active", "inputs", "norms"):
        for key, value in getattr(whole, kind).items():
            assert value.tobytes() == getattr(found, kind)[key].tobytes(), kind


def test_matrices_that_read_the_same_are_watched_once() -> None:
    model, parts = made("llama")
    meter = Meter(model, parts)
    meter.add(some_windows(1))
    assert meter.wiring is not None
    groups = [[matrix.module.split(".")[-1] for matrix in group] for group in meter.wiring.shared]
    assert groups == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]] * 2


def test_hooks_leave_nothing_behind_and_change_nothing() -> None:
    model, parts = made("llama")
    ids = torch.arange(5, 15)[None]
    before = model(input_ids=ids, use_cache=False).logits
    measure(model, parts, some_windows(), 3, taylor=True)
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_logits_that_differ_when_they_are_watched_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, parts = made("llama")
    plain = Meter._on_input

    def meddling(self: Meter, group: Any) -> Any:
        hook = plain(self, group)

        def changed(module: Any, given: Any) -> None:
            hook(module, given)
            given[0][..., 0] += 1e-3

        return changed

    monkeypatch.setattr(Meter, "_on_input", meddling)
    with pytest.raises(LangadaptError, match="logits of this model differ"):
        Meter(model, parts).add(some_windows(2))


def test_an_mlp_that_is_not_what_its_names_say_has_no_neurons() -> None:
    """The config says GELU, the module computes SiLU: what `down` reads is not act(gate) x up."""
    model, _ = made("llama")
    model.config.hidden_act = "gelu"
    meter = Meter(model, anatomy(model))
    meter.add(some_windows(2))
    assert meter.wiring is not None and "what `model.layers.0.mlp.down_proj.weight` reads" in meter.wiring.why_none
    found = meter.found("hu")
    assert not found.positive and not found.sums and len(found.inputs) == 14
    with pytest.raises(DataError, match="count no active neurons"):
        found.rates()
    assert stability(found)["neurons"] is None


def test_the_halves_of_a_fused_matrix_are_told_apart() -> None:
    import dataclasses

    model, parts = made("phi3")
    swapped = [dataclasses.replace(one, gate_offset=one.up_offset, up_offset=one.gate_offset) for one in parts.neurons]
    meter = Meter(model, dataclasses.replace(parts, neurons=tuple(swapped)))
    meter.add(some_windows(2))
    assert meter.wiring is not None and not meter.wiring.neurons


def test_activation_functions_that_counts_are_refused_for() -> None:
    fine = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "relu2", "tanh", "mish")
    assert [name for name in fine if not _by_sign(activation(name))] == []
    assert [name for name in ("sigmoid", "xielu") if _by_sign(activation(name))] == []
    assert activation("of the future") is None
    model, parts = made("llama", hidden_act="sigmoid")
    found = measure(model, parts, some_windows(2), 2)
    assert found.sums.keys() == {0, 1} and not found.positive
    with pytest.raises(DataError, match="count no active neurons"):
        found.rates()


def test_values_that_are_not_numbers_are_an_error() -> None:
    """At once where the model is damaged; at the end where it computes them of some text."""
    model, parts = made("llama")
    meter = Meter(model, parts)
    meter.add(some_windows(2))
    with torch.no_grad():
        model.get_parameter(parts.neurons[0].gate.weight)[0] = float("inf")
    meter.add(some_windows(2))
    with pytest.raises(DataError, match="not finite"):
        meter.found("hu")
    with pytest.raises(DataError, match="not finite"):
        Meter(model, parts).add(some_windows(2))


def words(texts: list[str]) -> list[list[int]]:
    """Token ids of letters: `a` is 10; a capital is a special token."""
    return [[ord(letter) - 87 if letter.islower() else 1 for letter in text] for text in texts]


def cut(texts: list[str], **settings: Any) -> tuple[list[Window], Read]:
    read = Read()
    chosen = Cut(**{"length": 5, "most": 100, "opener": 0, "specials": frozenset({0, 1})} | settings)
    return list(windows(texts, words, chosen, read)), read


def as_text(found: list[Window]) -> list[str]:
    """`.` is the opener; what does not count is in parentheses."""
    letters = {0: ".", 1: "X"}
    return [
        "".join(
            letters.get(int(id), chr(int(id) + 87)) if counts else f"({letters.get(int(id), chr(int(id) + 87))})"
            for id, counts in zip(window.ids, window.counts, strict=True)
        )
        for window in found
    ]


def test_text_is_packed_behind_openers_that_do_not_count() -> None:
    found, read = cut(["abcdef", "", "gXh"])
    assert as_text(found) == ["(.)abcd", "(.)ef(.)g", "(.)(X)h"]
    assert (read.documents, read.bytes, read.tokens) == (2, 9, 9)
    assert as_text(cut(["abcdef", "gXh"], opener=None)[0]) == ["abcde", "fg(X)h"]
    assert as_text(cut(["abcdef", "gXh"], joined=False)[0]) == ["(.)abcd", "(.)efg(X)", "(.)h"]
    assert as_text(cut(["abcdef", "gXh"], skip_first=True)[0]) == ["(.)(a)bcd", "(.)(e)f(.)(g)", "(.)(X)h"]
    assert as_text(cut(["abcdef", "gXh"], skip_first=True, opener=None)[0]) == ["(a)bcde", "(f)(g)(X)h"]


def test_no_more_text_is_read_than_was_asked_for() -> None:
    asked: list[str] = []

    def texts() -> Iterator[str]:
        for text in ["abcd"] * 1000:
            asked.append(text)
            yield text

    read = Read()
    found = list(windows(texts(), words, Cut(5, 10, 0, frozenset({0})), read))
    assert sum(int(window.counts.sum()) for window in found) == read.tokens == 10
    assert read.bytes == 10 and len(asked) < 200


def test_batches_hold_whole_windows_of_a_padded_size() -> None:
    sizes = [len(batch) for batch in batches(iter(some_windows(7, 12)), 30)]
    assert sizes == [2, 2, 2, 1]
    assert [len(batch) for batch in batches(iter(some_windows(2, 40)), 8)] == [1, 1]


def language(lang: str, positive: list[list[int]], tokens: int = 10) -> LanguageStatistics:
    """Two layers of the same counts in both halves unless given apart."""
    counts = {layer: np.array([values, values], dtype=np.int64) for layer, values in enumerate(positive)}
    squares = {"w": np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])}
    return LanguageStatistics(lang, np.array([tokens, tokens]), counts, {}, {}, {}, squares)


def test_stability_is_1_for_equal_halves_and_what_is_shared_for_others() -> None:
    same = language("hu", [list(range(20)), list(range(20))])
    assert stability(same) == {"neurons": 1.0, "columns": 1.0}
    # 2 of 40 neurons are the top 5 %: one of them is another in the second half
    same.positive[0][1, 0] = 100
    same.inputs["w"][1] = [3.0, 2.0, 1.0]
    assert stability(same) == {"neurons": round(1 / 3, 4), "columns": -1.0}
    none = LanguageStatistics("hu", np.array([5, 0]), {}, {}, {}, {}, {})
    assert stability(none) == {"neurons": None, "columns": None}


def test_layers_in_which_a_language_is_apart() -> None:
    found = {"en": language("en", [[1, 1], [5, 5]]), "hu": language("hu", [[1, 2], [9, 9]])}
    assert specific_layers(found) == {"en": [(1, 0.4), (0, 0.05)], "hu": [(1, 0.4), (0, 0.05)]}
    assert specific_layers({"en": found["en"]}) == {}


def test_a_language_that_was_not_measured_is_named() -> None:
    known = Statistics({"en": language("en", [[1]])})
    with pytest.raises(ConfigError, match="hold nothing of `hu`; they have en") as refused:
        known.of("hu")
    assert refused.value.hint is not None and "--add" in refused.value.hint
