"""What a precision means for a bundle, and the islands that stay float32 in a half-precision one.

An island is a value that a 16-bit float cannot hold well enough to keep the reference's result. Islands that are
computations are marked where they stand in the stages; the tensors that feed them are listed here.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Precision:
    """Dtypes of one bundle: `weights` and activations, and `stored`, what the memory bank keeps. With `int8_linear` the
    linear layers are quantised once the graph is written (`quantize.py`).

    The reference rounds a memory to bfloat16 when it stores it. A half-precision bundle rounds it to float16 instead,
    which has more mantissa bits and less range; memories are the output of a 1x1 convolution and stay small.
    """

    name: str
    weights: torch.dtype
    stored: torch.dtype
    int8_linear: bool = False


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32, torch.bfloat16),
    "fp16": Precision("fp16", torch.float16, torch.float16),
    "int8": Precision("int8", torch.float32, torch.bfloat16, int8_linear=True),
}

# Buffer or parameter name (the end of it) -> why it stays float32.
FLOAT32_ISLANDS = {
    "offset": "8-bit levels are normalised before they are rounded to half precision",
    "spread": "8-bit levels are normalised before they are rounded to half precision",
    "wavelength": "frame distances become angles; half precision would move a pointer by a frame",
    "shared_embedding.positional_embedding": "prompt coordinates become angles of dozens of radians",
    "steps": "places in the image are compared with the sides of boxes",
    "first_boxes": "boxes are refined by small steps",
    "mask_to_low": "mask prompts are resized and thresholded",
    "low_to_target": "masks are resized and thresholded",
}


def lower(stage: nn.Module, precision: Precision) -> None:
    """Converts a stage in place, keeping the islands; the stage's caches are already computed in float32."""
    if precision.weights == torch.float32:
        return
    tensors = list(stage.named_parameters()) + list(stage.named_buffers())
    kept = {name: tensor.data.clone() for name, tensor in tensors if name.endswith(tuple(FLOAT32_ISLANDS))}
    stage.to(precision.weights)
    for name, tensor in list(stage.named_parameters()) + list(stage.named_buffers()):
        if name in kept:
            tensor.data = kept[name]
