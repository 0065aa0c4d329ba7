"""Operators that exist twice: as PyTorch code in eager mode, as one fused ONNX Runtime operator in an export.

The eager form is what training and the stage tests run; the exported form is ONNX Runtime's contrib operator, whose
CPU and CUDA kernels never materialise the score matrix.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, scale: float, bias: Tensor | None = None
) -> Tensor:
    """Softmax attention of `[batch, tokens, heads * head_dim]` tensors.

    `query` and `key` share their last dimension; `value`'s may differ (the output has it). `query`'s batch is the
    output's. `bias` `[batch, heads, queries, keys]` is added to the scores, which are then held in full. Exported as
    `com.microsoft.MultiHeadAttention`: the standard `Attention` operator of opset 23 is a decomposition on CPU that
    holds all scores at once.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            [query, key, value] if bias is None else [query, key, value, None, None, bias],
            {"num_heads": num_heads, "scale": float(scale)},
            dtype=query.dtype,
            shape=(*query.shape[:2], value.shape[2]),
            version=1,
        )
    split = [tensor.unflatten(2, (num_heads, -1)).transpose(1, 2) for tensor in (query, key, value)]
    return F.scaled_dot_product_attention(*split, attn_mask=bias, scale=scale).transpose(1, 2).flatten(2)


def roi_align(image_nchw: Tensor, corners: Tensor, side: int) -> Tensor:
    """Mean values in a `side` x `side` grid over each region of one image, f32 `[regions, C, side, side]`.

    `corners` f32 `[regions, 4]` are left, top, right and bottom in pixels of `image_nchw`. As
    `torchvision.ops.roi_align` by default: no shift by half a pixel, and as many samples as the region has pixels.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic(
            "RoiAlign",
            [image_nchw, corners, torch.zeros_like(corners[:, 0], dtype=torch.int64)],
            {
                "coordinate_transformation_mode": "output_half_pixel",
                "mode": "avg",
                "output_height": side,
                "output_width": side,
                "sampling_ratio": 0,
                "spatial_scale": 1.0,
            },
            dtype=image_nchw.dtype,
            shape=(corners.shape[0], image_nchw.shape[1], side, side),
        )
    from torchvision.ops import roi_align as reference

    return reference(image_nchw, [corners], side)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of adjacent pairs; `x` is `[batch, tokens, heads * head_dim]`.

    `cos` and `sin` are `[tokens, head_dim / 2]` (one angle a pair) and apply to every head and batch item. Exported as
    `com.microsoft.RotaryEmbedding`, which wants exactly as many tokens as its caches have: fold memory frames into
    the batch. Follows `apply_rotary_pos_emb_2d` of the reference, which computes in float32 as the eager form does.
    """
    if torch.onnx.is_in_onnx_export():
        position = torch.zeros(1, dtype=torch.int64)
        return torch.onnx.ops.symbolic(
            "com.microsoft::RotaryEmbedding",
            [x, position, cos, sin],
            {"interleaved": 1},
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )
    # One complex product for each pair instead of a dozen small operations: training spent a tenth of its time here.
    pairs = torch.view_as_complex(x.float().unflatten(2, (-1, cos.shape[1], 2)))
    turn = torch.complex(cos.float(), sin.float())[:, None]
    return torch.view_as_real(pairs * turn).flatten(2).to(x.dtype)


def concat_tokens(tensors: Sequence[Tensor], tokens: int | torch.SymInt) -> Tensor:
    """Concatenates `[batch, tokens_i, channels]` tensors along the tokens; any of them may hold none.

    `tokens` is the sum of all `tokens_i`: an exported graph takes each length as an independent axis, and only the
    caller knows what they add up to.
    """
    if torch.onnx.is_in_onnx_export():
        first = tensors[0]
        return torch.onnx.ops.symbolic(
            "Concat", list(tensors), {"axis": 1}, dtype=first.dtype, shape=(first.shape[0], tokens, first.shape[2])
        )
    return torch.cat(list(tensors), dim=1)


def resize_matrix(source: int, target: int, antialias: bool) -> Tensor:
    """`[target, source]` float32 weights of PyTorch's bilinear resize of one axis, `align_corners=False`.

    Read off the reference's own operator by resizing the identity, so that ties and borders are its ties and borders.
    """
    identity = torch.eye(source)[None, None]
    resized = F.interpolate(identity, (target, source), mode="bilinear", align_corners=False, antialias=antialias)
    return resized[0, 0]


def resize(image: Tensor, matrix: Tensor) -> Tensor:
    """Resizes `[..., source, source]` to `[..., target, target]` with a matrix of `resize_matrix`, both axes alike."""
    return matrix @ image @ matrix.T
