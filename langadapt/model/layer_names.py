"""Which layer a parameter lies in, and what it is there: cut out of its name.

`model.layers.7.mlp.up_proj.weight` is `mlp.up_proj.weight` of layer 7. Experts of a layer are of one kind:
`block_sparse_moe.experts.*.w1.weight`.
"""

import re

# The first number in the name: that of the layer.
_LAYER = re.compile(r"^.*?\.(\d+)\.(.+)$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def layer_and_kind(name: str) -> tuple[int | None, str]:
    """(layer, name within it). Tables and what stands before or behind the layers: (None, the whole name)."""
    found = _LAYER.match(name)
    return (None, name) if found is None else (int(found[1]), _NUMBER.sub("*", found[2]))
