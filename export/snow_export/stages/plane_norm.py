"""Norms over the channels of an image as sums over planes.

The reference's `Sam3TrackerVideoLayerNorm` over `[n, c, h, w]` is exported as a layer norm between two transposes, and
a GPU's layer norm gives every row a block of threads: a million rows of 4 channels, for 4 objects at 1008 px, keep it
busy with nothing. Mean and variance as products with a row of ones read each plane once, and are the same.
"""

import copy

import torch
from torch import Tensor, nn
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoLayerNorm

# Rows of more channels than this are long enough for a layer norm.
MOST_CHANNELS = 64


class PlaneNorm(nn.Module):
    """`Sam3TrackerVideoLayerNorm` over the channels of `[n, c, h, w]`, computed in float32, in the input's dtype."""

    def __init__(self, norm: Sam3TrackerVideoLayerNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x_nchw: Tensor) -> Tensor:
        """The norm of every pixel."""
        x_ncp = x_nchw.float().flatten(2)
        centred = x_ncp - _mean(x_ncp)
        scaled = centred / (_mean(centred * centred) + self.eps).sqrt()
        scaled = scaled * self.weight.float().view(-1, 1) + self.bias.float().view(-1, 1)
        return scaled.to(x_nchw.dtype).view(x_nchw.shape)


def _mean(x_ncp: Tensor) -> Tensor:
    """Mean over the channels, `[n, 1, p]`; exported as a product, because reductions of a middle axis are slow."""
    if torch.onnx.is_in_onnx_export():
        return x_ncp.new_full((1, x_ncp.shape[1]), 1 / x_ncp.shape[1]) @ x_ncp
    return x_ncp.mean(dim=1, keepdim=True)


def with_plane_norms(module: nn.Module, most: int | None = MOST_CHANNELS) -> nn.Module:
    """A copy of a module that shares its parameters and has `PlaneNorm` for each norm over at most so many channels."""
    memo = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    module = copy.deepcopy(module, memo)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            planes = isinstance(child, Sam3TrackerVideoLayerNorm) and child.data_format == "channels_first"
            if planes and (most is None or child.weight.numel() <= most):
                setattr(parent, name, PlaneNorm(child))
    return module
