"""Train half of the matrices whole, drawn by the seed (Half Fine-Tuning); the other half stays."""

from langadapt.core.config import Options as OptionsBase
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.choice import TablesMove, layers_of, moving, tables_of, tables_share
from langadapt.select.inputs import SelectInputs


class Options(OptionsBase):
    """What happens to the tables."""

    tables: TablesMove = "train"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    cite="Hui et al. 2024, HFT: Half Fine-Tuning for Large Language Models (arXiv 2404.18466)",
    defaults={"weight_decay": 0.01},
    portion=lambda options: Portion(0.5, tables_share(options.tables), whole=True),
)
def hft(inputs: SelectInputs, options: Options) -> Movable:
    """In each layer half of attention and of the norms; of the MLP two thirds in half of the layers, else one third.

    A bias goes with its matrix or norm.
    """
    placed = layers_of(inputs)
    mlp = {name for layer in inputs.anatomy.neurons for name, _, _ in layer.parts}
    matrices = [matrix for matrix in inputs.anatomy.matrices if matrix.layer is not None]
    layers = sorted(set(placed.values()))
    order = inputs.stream("hft", "layers").permutation(len(layers))
    more = {layers[place] for place in order[: len(layers) // 2]}
    names: set[str] = set()
    for layer in layers:
        own = [matrix.weight for matrix in matrices if matrix.layer == layer]
        inner = [name for name in own if name in mlp]
        outer = [name for name in own if name not in mlp]
        norms = [name for name, shape in inputs.parameters.items()
                 if placed.get(name) == layer and len(shape) == 1 and name.endswith("weight")]  # fmt: skip
        thirds = 2 if layer in more else 1
        for kind, group, count in (
            ("attention", outer, len(outer) // 2),
            ("mlp", inner, round(len(inner) * thirds / 3)),
            ("norms", norms, len(norms) // 2),
        ):
            drawn = inputs.stream("hft", str(layer), kind).permutation(len(group))[:count]
            names.update(group[place] for place in drawn)
    beside = {f"{name.removesuffix('weight')}bias" for name in names}
    return moving(inputs, tables_of(inputs, options.tables), names | (beside & inputs.parameters.keys()))
