"""Other tables for a model that is loaded: what a saved folder with them would compute, without the folder."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def put_tables(
    model: Any, inputs: "torch.Tensor", head: "torch.Tensor | None" = None, bias: "torch.Tensor | None" = None
) -> None:
    """Give the model an input table [rows, width], a head [rows, width] (None: the input table) and a bias [rows].

    Values are widened to the dtype that the model was loaded in, as they would be on loading. The tables that were
    there are let go.
    """
    from torch import nn

    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    dtype, device = embedding.weight.dtype, embedding.weight.device

    def placed(values: "torch.Tensor") -> nn.Parameter:
        return nn.Parameter(values.to(device=device, dtype=dtype), requires_grad=False)

    # the old table goes before the new one comes: memory is that of one model
    embedding.weight = output.weight = None
    embedding.weight = placed(inputs)
    embedding.num_embeddings = inputs.shape[0]
    # an id of the old vocabulary, of no use without a gradient
    embedding.padding_idx = None
    output.weight = embedding.weight if head is None else placed(head)
    output.out_features = inputs.shape[0]
    if bias is not None:
        output.bias = placed(bias.flatten())
    model.config.get_text_config().vocab_size = inputs.shape[0]
