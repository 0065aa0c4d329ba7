"""Stage 1: an RGB image to the features that every object shares.

Follows `Sam3ViTModel`, `Sam3VisionNeck` and `Sam3TrackerVideoModel.get_image_features` of transformers. Differences:
fused attention and rotary operators, normalisation inside the graph, no fourth pyramid level (the tracker drops it),
and an order of tokens of its own: window by window instead of row by row, from the first layer to the last. Everything
but attention treats tokens alike, and attention knows places from the rotary tables, which have the same order; so
windows are cut without moving anything.

The reference pads the image to whole windows with zeros, after the norm. Such a token is a bias as a key and as a
value, so padding comes in after the projections here, and it never is a query.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..ops import attention, rotate
from .neck import MergedLevel


@dataclass(frozen=True)
class WindowGroup:
    """Windows of one shape: `count` windows of `tokens` tokens each, which are the tokens from `start` on.

    `places` are the places in a full window, row by row, of its tokens and then of its padding.
    """

    start: int
    count: int
    tokens: int
    places: Tensor

    @property
    def end(self) -> int:
        """The token after the last."""
        return self.start + self.count * self.tokens

    @property
    def padding(self) -> int:
        """Tokens of padding in a window."""
        return len(self.places) - self.tokens


def window_order(grid: int, window: int) -> tuple[Tensor, list[WindowGroup]]:
    """Places of a `grid` x `grid` image, row by row, in the order of windows; and the windows that this makes.

    Windows at the right and the bottom border are cut off where `window` does not divide `grid`.
    """
    places = torch.arange(grid * grid).view(grid, grid)
    in_window = torch.arange(window * window).view(window, window)
    spans = [(first, min(first + window, grid)) for first in range(0, grid, window)]
    by_shape: dict[tuple[int, int], list[Tensor]] = {}
    for top, bottom in spans:
        for left, right in spans:
            tile = places[top:bottom, left:right]
            by_shape.setdefault(tuple(tile.shape), []).append(tile.flatten())
    groups, order = [], []
    for (height, width), tiles in by_shape.items():
        inside = torch.zeros(window, window, dtype=torch.bool)
        inside[:height, :width] = True
        places = torch.cat((in_window[inside], in_window[~inside]))
        groups.append(WindowGroup(sum(len(tile) for tile in order), len(tiles), height * width, places))
        order += tiles
    return torch.cat(order), groups


class VisionEncoder(nn.Module):
    """`image` u8 `[1, R, R, 3]` to the tracker's features.

    Outputs: `features_nlc` and `features_no_memory_nlc` `[1, G * G, C]` (the second carries the "no memory" embedding
    that a frame without history needs), `high_res_0_nchw` `[1, C / 8, 4 G, 4 G]` and `high_res_1_nchw`
    `[1, C / 4, 2 G, 2 G]`; `with_backbone` also `backbone_nlc` `[1, G * G, backbone channels]`, for the detector.
    """

    def __init__(
        self,
        model: Sam3TrackerVideoModel,
        mean: list[float],
        std: list[float],
        scale: float,
        with_backbone: bool = False,
    ):
        super().__init__()
        self.with_backbone = with_backbone
        vision = model.vision_encoder
        self.backbone = vision.backbone
        self.neck = vision.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        self.no_memory_embedding = model.no_memory_embedding
        backbone_config = vision.config.backbone_config
        self.grid = grid = model.config.image_size // backbone_config.patch_size
        # Normalisation stays in float32 whatever the precision: 8-bit levels divided by the spread of a channel.
        self.register_buffer("offset", torch.tensor(mean) / scale, persistent=False)
        self.register_buffer("spread", torch.tensor(std) / scale, persistent=False)

        order, self.groups = window_order(grid, backbone_config.window_size)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("places", order.argsort(), persistent=False)
        embeddings = self.backbone.embeddings
        with torch.no_grad():
            position = embeddings._tile_position_embeddings(embeddings.position_embeddings, grid, grid)
        # A view of the trained parameter would be tied to its resolution; training keeps its gradient by re-tiling.
        self.register_buffer("position", position.detach().clone(), persistent=False)
        self.windowed = [layer.window_size > 0 for layer in self.backbone.layers]
        tables: list[tuple[bool, Tensor, Tensor]] = []
        self.table_of = [self._rotary(tables, layer, position) for layer in self.backbone.layers]

    def _rotary(self, tables: list[tuple[bool, Tensor, Tensor]], layer: nn.Module, position: Tensor) -> int:
        """Keeps the rotary tables of a layer, which most layers have in common, and returns their number."""
        cos, sin = (table[0, :, ::2].clone() for table in layer.rotary_emb(position, layer.position_ids))
        windowed = layer.window_size > 0
        for number, (other_windowed, other_cos, other_sin) in enumerate(tables):
            # Where one window is the whole image both kinds of layers have the same values, kept under other names.
            if windowed == other_windowed and torch.equal(cos, other_cos) and torch.equal(sin, other_sin):
                return number
        number = len(tables)
        tables.append((windowed, cos, sin))
        for kind, table in (("cos", cos), ("sin", sin)):
            if layer.window_size == 0:
                self.register_buffer(f"{kind}_{number}", table[self.order].clone(), persistent=False)
                continue
            for index, group in enumerate(self.groups):
                keys = table[group.places]
                self.register_buffer(f"{kind}_{number}_{index}", keys, persistent=False)
                if group.padding:
                    queries = keys[: group.tokens].clone()
                    self.register_buffer(f"{kind}_{number}_{index}_query", queries, persistent=False)
        return number

    def fold(self) -> None:
        """Merges what is linear in the fine levels; needed before `forward` in evaluation mode."""
        layers, projections = self.neck.fpn_layers, (self.conv_s0, self.conv_s1)
        self.fine_levels = nn.ModuleList(
            MergedLevel(layers[level], projections[level], (4, 2)[level] * self.grid) for level in range(2)
        )

    def _table(self, name: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"cos_{name}"), getattr(self, f"sin_{name}")

    def _attend(self, index: int, module: nn.Module, x_tc: Tensor) -> Tensor:
        tokens, table = len(self.order), f"{self.table_of[index]}"
        if self.windowed[index]:
            if len(self.groups) > 1 or self.groups[0].padding:
                return self._attend_cut_windows(index, module, x_tc)
            tokens, table = self.groups[0].tokens, f"{table}_0"
        query, key, value = (
            projection(x_tc).view(-1, tokens, x_tc.shape[1])
            for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        query, key = (rotate(tensor, *self._table(table)) for tensor in (query, key))
        return attention(query, key, value, module.num_attention_heads, module.scaling).view(x_tc.shape)

    def _attend_cut_windows(self, index: int, module: nn.Module, x_tc: Tensor) -> Tensor:
        channels = x_tc.shape[1]
        projected = (
            module.q_proj(x_tc),
            F.linear(x_tc, module.k_proj.weight),
            F.linear(x_tc, module.v_proj.weight),
        )
        projected = [tensor.view(-1, len(self.order), channels) for tensor in projected]
        mixed = []
        for number, group in enumerate(self.groups):
            name = f"{self.table_of[index]}_{number}"
            query, key, value = (
                tensor[:, group.start : group.end].reshape(-1, group.tokens, channels) for tensor in projected
            )
            if group.padding:
                key, value = (F.pad(tensor, (0, 0, 0, group.padding)) for tensor in (key, value))
            query = rotate(query, *self._table(f"{name}_query" if group.padding else name))
            key = rotate(key + module.k_proj.bias, *self._table(name))
            value = value + module.v_proj.bias
            out = attention(query, key, value, module.num_attention_heads, module.scaling)
            mixed.append(out.reshape(-1, group.count * group.tokens, channels))
        return torch.cat(mixed, dim=1).view(x_tc.shape)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        grid = self.grid
        embeddings = self.backbone.embeddings
        pixels = ((image.float() - self.offset) / self.spread).permute(0, 3, 1, 2)
        position = self.position
        if self.training:
            position = embeddings._tile_position_embeddings(embeddings.position_embeddings, grid, grid)
        # Tokens of all images in one axis: a linear layer is one operator then, and what has one shape shares memory.
        x_tc = (embeddings.patch_embeddings(pixels) + position).index_select(1, self.order).flatten(0, 1)
        x_tc = self.backbone.layer_norm(x_tc)
        for index, layer in enumerate(self.backbone.layers):
            x_tc = x_tc + layer.attention.o_proj(self._attend(index, layer.attention, layer.layer_norm1(x_tc)))
            x_tc = x_tc + layer.mlp(layer.layer_norm2(x_tc))
        x_nlc = x_tc.view(-1, grid * grid, x_tc.shape[1]).index_select(1, self.places)
        x_nchw = x_nlc.transpose(1, 2).unflatten(2, (grid, grid))
        features_nlc = self.neck.fpn_layers[2](x_nchw).flatten(2).transpose(1, 2)
        if self.training:
            high_res = [
                projection(layer(x_nchw))
                for layer, projection in zip(self.neck.fpn_layers, (self.conv_s0, self.conv_s1), strict=False)
            ]
        else:
            high_res = [level(x_nchw) for level in self.fine_levels]
        backbone = (x_nlc,) if self.with_backbone else ()
        return features_nlc, features_nlc + self.no_memory_embedding, *high_res, *backbone
