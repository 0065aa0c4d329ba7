"""Stage 1: an RGB image to the features that every object shares.

Follows `Sam3ViTModel`, `Sam3VisionNeck` and `Sam3TrackerVideoModel.get_image_features` of transformers. Differences:
fused attention and rotary operators, normalisation inside the graph, no fourth pyramid level (the tracker drops it).
"""

import torch
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..ops import attention, rotate


def partition(x_bhwc: Tensor, window: int) -> Tensor:
    """`[b, h, w, c]` to `[b * windows, window * window, c]`, zero-padded at the bottom and right like the reference."""
    height, width = x_bhwc.shape[1:3]
    pad_h, pad_w = -height % window, -width % window
    if pad_h or pad_w:
        x_bhwc = nn.functional.pad(x_bhwc, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // window, (width + pad_w) // window
    tiles = x_bhwc.view(-1, rows, window, columns, window, x_bhwc.shape[3]).transpose(2, 3)
    return tiles.reshape(-1, window * window, x_bhwc.shape[3])


def unpartition(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of `partition`; the padding is cut off."""
    rows, columns = -(-height // window), -(-width // window)
    tiles = windows.view(-1, rows, columns, window, window, windows.shape[2]).transpose(2, 3)
    return tiles.reshape(-1, rows * window, columns * window, windows.shape[2])[:, :height, :width]


class VisionEncoder(nn.Module):
    """`image` u8 `[1, R, R, 3]` to the tracker's features.

    Outputs: `features_nlc` and `features_no_memory_nlc` `[1, G * G, C]` (the second carries the "no memory" embedding
    that a frame without history needs), `high_res_0_nchw` `[1, C / 8, 4 G, 4 G]` and `high_res_1_nchw`
    `[1, C / 4, 2 G, 2 G]`.
    """

    def __init__(self, model: Sam3TrackerVideoModel, mean: list[float], std: list[float], scale: float):
        super().__init__()
        vision = model.vision_encoder
        self.backbone = vision.backbone
        self.neck = vision.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.no_memory_embedding = model.no_memory_embedding
        self.grid = model.config.image_size // vision.config.backbone_config.patch_size
        # Normalisation stays in float32 whatever the precision: 8-bit levels divided by the spread of a channel.
        self.register_buffer("offset", torch.tensor(mean) / scale, persistent=False)
        self.register_buffer("spread", torch.tensor(std) / scale, persistent=False)

        embeddings = self.backbone.embeddings
        with torch.no_grad():
            position = embeddings._tile_position_embeddings(embeddings.position_embeddings, self.grid, self.grid)
        # A view of the trained parameter would be tied to its resolution; training keeps its gradient by re-tiling.
        self.register_buffer("position", position.detach().clone(), persistent=False)
        for index, layer in enumerate(self.backbone.layers):
            cos, sin = layer.rotary_emb(position, layer.position_ids)
            self.register_buffer(f"cos_{index}", cos[0, :, ::2].clone(), persistent=False)
            self.register_buffer(f"sin_{index}", sin[0, :, ::2].clone(), persistent=False)

    def _attend(self, index: int, layer: nn.Module, x_blc: Tensor) -> Tensor:
        module = layer.attention
        cos, sin = getattr(self, f"cos_{index}"), getattr(self, f"sin_{index}")
        query = rotate(module.q_proj(x_blc), cos, sin)
        key = rotate(module.k_proj(x_blc), cos, sin)
        mixed = attention(query, key, module.v_proj(x_blc), module.num_attention_heads, module.scaling)
        return module.o_proj(mixed)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grid = self.grid
        embeddings = self.backbone.embeddings
        pixels = ((image.float() - self.offset) / self.spread).permute(0, 3, 1, 2)
        position = self.position
        if self.training:
            position = embeddings._tile_position_embeddings(embeddings.position_embeddings, grid, grid)
        x = embeddings.patch_embeddings(pixels) + position
        x = self.backbone.layer_norm(x.unflatten(1, (grid, grid)))
        for index, layer in enumerate(self.backbone.layers):
            normed = layer.layer_norm1(x)
            if layer.window_size > 0:
                mixed = self._attend(index, layer, partition(normed, layer.window_size))
                mixed = unpartition(mixed, layer.window_size, grid, grid)
            else:
                mixed = self._attend(index, layer, normed.flatten(1, 2)).unflatten(1, (grid, grid))
            x = x + mixed
            x = x + layer.mlp(layer.layer_norm2(x))
        x_nchw = x.permute(0, 3, 1, 2)
        level_0, level_1, level_2 = (layer(x_nchw) for layer in self.neck.fpn_layers[:3])
        features_nlc = level_2.flatten(2).transpose(1, 2)
        return features_nlc, features_nlc + self.no_memory_embedding, self.conv_s0(level_0), self.conv_s1(level_1)
