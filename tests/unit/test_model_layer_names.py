"""A layer's number is cut out of a parameter's name in one way."""

import pytest

from langadapt.model.layer_names import layer_and_kind


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.7.mlp.up_proj.weight", (7, "mlp.up_proj.weight")),
        ("transformer.h.11.attn.c_attn.bias", (11, "attn.c_attn.bias")),
        ("model.layers.3.block_sparse_moe.experts.5.w1.weight", (3, "block_sparse_moe.experts.*.w1.weight")),
        ("model.layers.3.mlp.experts.12.4.weight", (3, "mlp.experts.*.*.weight")),
        ("model.embed_tokens.weight", (None, "model.embed_tokens.weight")),
        ("lm_head.weight", (None, "lm_head.weight")),
        ("model.norm2.weight", (None, "model.norm2.weight")),
    ],
)
def test_layer_and_kind(name: str, expected: tuple[int | None, str]) -> None:
    assert layer_and_kind(name) == expected
