"""The two fine levels of the vision encoder's pyramid, each with all that is linear in it as one operator.

Follows `Sam3FPNLayer` and the mask decoder's `conv_s0` and `conv_s1`: a transposed convolution (2x2, stride 2), then a
1x1, a 3x3 and again a 1x1 convolution with nothing between them. One transposed convolution (4x4, stride 2) is the
same; it needs a fraction of the arithmetic and none of the wide maps at four times the grid, which were the largest
tensors of the stage. The inner biases meet the zeros that the 3x3 convolution sees around the map, so what they add is
a map too.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MergedLevel(nn.Module):
    """`[1, channels, g, g]` to a level of high-resolution features `[1, C / 8 or C / 4, side, side]`.

    `layer` is the pyramid's, `projection` the decoder's 1x1 convolution after it. Products are taken in float64.
    """

    def __init__(self, layer: nn.Module, projection: nn.Conv2d, side: int):
        super().__init__()
        self.before = nn.Sequential(*list(layer.scale_layers)[:-1])
        last = layer.scale_layers[-1]
        with torch.no_grad():
            narrow = layer.proj1.weight[:, :, 0, 0].double()
            up_ifhw = torch.einsum("imhw,fm->ifhw", last.weight.double(), narrow)
            up_bias = narrow @ last.bias.double() + layer.proj1.bias.double()
            mix = projection.weight[:, :, 0, 0].double()
            smooth_ofhw = torch.einsum("og,gfhw->ofhw", mix, layer.proj2.weight.double())
            bias = mix @ layer.proj2.bias.double() + projection.bias.double()
            weight_iohw = torch.zeros(up_ifhw.shape[0], len(bias), 4, 4, dtype=torch.float64)
            # A pixel at 2 i + d feeds those at 2 i + d - (k - 1), which is tap d - k + 2 of an operator padded by 1.
            for (dy, dx), (ky, kx) in product(product(range(2), repeat=2), product(range(3), repeat=2)):
                part = up_ifhw[:, :, dy, dx] @ smooth_ofhw[:, :, ky, kx].T
                weight_iohw[:, :, dy - ky + 2, dx - kx + 2] += part
            inner = up_bias.view(1, -1, 1, 1).expand(-1, -1, side, side)
            bias_map = F.conv2d(inner, smooth_ofhw, bias, padding=1)
        dtype = last.weight.dtype
        self.weight = nn.Parameter(weight_iohw.to(dtype), requires_grad=False)
        self.register_buffer("bias_map", bias_map.to(dtype), persistent=False)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return F.conv_transpose2d(self.before(x_nchw), self.weight, stride=2, padding=1) + self.bias_map
