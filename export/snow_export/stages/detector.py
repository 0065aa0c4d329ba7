"""The detector: what the vision backbone saw, and what is looked for, to boxes, scores and masks.

Follows `Sam3Model` of transformers, cut into three graphs by how often each has to run: the pyramid once a frame, the
search for objects once for each text, the masks only for what was found.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import (
    Sam3Model,
    Sam3SinePositionEmbedding,
    box_cxcywh_to_xyxy,
    inverse_sigmoid,
)

from ..ops import attention


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """`Sam3Attention` of `[batch, tokens, C]` tensors, with `bias` `[batch, heads, queries, keys]` on the scores."""
    mixed = attention(
        module.q_proj(query),
        module.k_proj(key),
        module.v_proj(value),
        module.num_attention_heads,
        module.scaling,
        bias,
    )
    return module.o_proj(mixed)


def grid_positions(channels: int, grid: int) -> Tensor:
    """The pyramid's position encoding of a `grid` x `grid` level, f32 `[1, grid * grid, channels]`."""
    encoding = Sam3SinePositionEmbedding(num_position_features=channels // 2, normalize=True)
    position_nchw = encoding((1, channels, grid, grid), "cpu", torch.float32)
    return position_nchw.flatten(2).transpose(1, 2).contiguous()


class DetectorFeatures(nn.Module):
    """`backbone_nlc` `[1, G * G, backbone channels]` to the detector's own pyramid: `level_0_nchw` `[1, C, 4 G, 4 G]`,
    `level_1_nchw` `[1, C, 2 G, 2 G]` and `level_2_nchw` `[1, C, G, G]`.
    """

    def __init__(self, model: Sam3Model, grid: int):
        super().__init__()
        # The reference drops the last level.
        self.levels = model.vision_encoder.neck.fpn_layers[:3]
        self.grid = grid

    def forward(self, backbone_nlc: Tensor) -> tuple[Tensor, ...]:
        backbone_nchw = backbone_nlc.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return tuple(level(backbone_nchw) for level in self.levels)


class Detector(nn.Module):
    """Looks for what `prompt_nlc` `[1, tokens, C]` (text, then geometry) says in `level_2_nchw` `[1, C, G, G]`.

    Outputs, for each of `queries` candidates: `boxes` f32 `[queries, 4]`, corners as shares of the image; `scores` f32
    `[queries]`, 0 to 1, the presence of anything included; `queries_qc` `[queries, C]`, from which `DetectorMasks`
    makes masks. Also `encoded_nlc` `[1, G * G, C]`, which it needs too.
    """

    def __init__(self, model: Sam3Model, grid: int, dtype: torch.dtype):
        super().__init__()
        self.encoder, self.decoder = model.detr_encoder, model.detr_decoder
        self.scoring = model.dot_product_scoring
        self.grid, self.dtype = grid, dtype
        self.register_buffer("position_nlc", grid_positions(self.encoder.hidden_size, grid), persistent=False)
        # f32 whatever the precision, as all that has to do with places.
        self.register_buffer("steps", torch.arange(grid, dtype=torch.float32) / grid, persistent=False)
        self.register_buffer("first_boxes", self.decoder.reference_points.weight.detach().sigmoid(), persistent=False)

    def _encode(self, x_nlc: Tensor, prompt_nlc: Tensor) -> Tensor:
        for layer in self.encoder.layers:
            normed = layer.layer_norm1(x_nlc)
            placed = normed + self.position_nlc
            x_nlc = x_nlc + attend(layer.self_attn, placed, placed, normed)
            x_nlc = x_nlc + attend(layer.cross_attn, layer.layer_norm2(x_nlc), prompt_nlc, prompt_nlc)
            x_nlc = x_nlc + layer.mlp(layer.layer_norm3(x_nlc))
        return x_nlc

    def _box_bias(self, boxes_q4: Tensor) -> Tensor:
        """What each query's box adds to its attention on the image: `[1, heads, 1 + queries, G * G]`; the first row is
        that of the presence token, which has no box.
        """
        corners = box_cxcywh_to_xyxy(boxes_q4)
        parts = []
        for embed, sides in (
            (self.decoder.box_rpb_embed_y, corners[:, 1::2]),
            (self.decoder.box_rpb_embed_x, corners[:, ::2]),
        ):
            distance = (self.steps[None, :, None] - sides[:, None]) * 8
            distance = distance.sign() * torch.log2(distance.abs() + 1) / math.log2(8)
            parts.append(embed(distance.to(self.dtype)).permute(2, 0, 1))
        bias = parts[0][..., None] + parts[1][..., None, :]
        return F.pad(bias.flatten(2), (0, 0, 1, 0))[None]

    def forward(self, level_2_nchw: Tensor, prompt_nlc: Tensor) -> tuple[Tensor, ...]:
        decoder = self.decoder
        encoded_nlc = self._encode(level_2_nchw.flatten(2).transpose(1, 2), prompt_nlc)
        keys_nlc = encoded_nlc + self.position_nlc

        boxes = self.first_boxes
        x_nlc = torch.cat((decoder.presence_token.weight, decoder.query_embed.weight))[None]
        for layer in decoder.layers:
            sines = decoder.position_encoding.encode_boxes(boxes[None])
            place = F.pad(decoder.ref_point_head(sines.to(self.dtype)), (0, 0, 1, 0))
            placed = x_nlc + place
            x_nlc = layer.self_attn_layer_norm(x_nlc + attend(layer.self_attn, placed, placed, x_nlc))
            mixed = attend(layer.text_cross_attn, x_nlc + place, prompt_nlc, prompt_nlc)
            x_nlc = layer.text_cross_attn_layer_norm(x_nlc + mixed)
            mixed = attend(layer.vision_cross_attn, x_nlc + place, keys_nlc, encoded_nlc, self._box_bias(boxes))
            x_nlc = layer.vision_cross_attn_layer_norm(x_nlc + mixed)
            x_nlc = layer.mlp_layer_norm(x_nlc + layer.mlp(x_nlc))
            queries = decoder.output_layer_norm(x_nlc[0, 1:])
            boxes = (decoder.box_head(queries).float() + inverse_sigmoid(boxes)).sigmoid()

        presence = decoder.presence_head(decoder.presence_layer_norm(x_nlc[0, :1])).float()
        limit = decoder.clamp_presence_logit_max_val
        scores = self._scores(queries, prompt_nlc[0]) * presence.clamp(-limit, limit).sigmoid()[0]
        return box_cxcywh_to_xyxy(boxes), scores, queries, encoded_nlc

    def _scores(self, queries: Tensor, prompt_lc: Tensor) -> Tensor:
        scoring = self.scoring
        prompt = scoring.text_mlp_out_norm(scoring.text_mlp(prompt_lc) + prompt_lc).mean(dim=0)
        logits = scoring.query_proj(queries).float() @ scoring.text_proj(prompt).float() * scoring.scale
        if scoring.clamp_logits:
            logits = logits.clamp(-scoring.clamp_max_val, scoring.clamp_max_val)
        return logits.sigmoid()


class DetectorMasks(nn.Module):
    """Masks of some candidates: `queries_qc` `[found, C]`, rows of the detector's, to `mask_logits` f32
    `[found, 4 G, 4 G]`.
    """

    def __init__(self, model: Sam3Model, grid: int):
        super().__init__()
        self.decoder = model.mask_decoder
        self.grid = grid

    def forward(
        self, level_0_nchw: Tensor, level_1_nchw: Tensor, encoded_nlc: Tensor, prompt_nlc: Tensor, queries_qc: Tensor
    ) -> Tensor:
        decoder = self.decoder
        normed = decoder.prompt_cross_attn_norm(encoded_nlc)
        encoded_nlc = encoded_nlc + attend(decoder.prompt_cross_attn, normed, prompt_nlc, prompt_nlc)
        encoded_nchw = encoded_nlc.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        pixels_nchw = decoder.pixel_decoder([level_0_nchw, level_1_nchw, encoded_nchw])
        # The projection is linear: on the few queries it costs nothing, on all pixels a pass over the largest tensor.
        project = decoder.instance_projection
        masks_qc = decoder.mask_embedder(queries_qc)
        bias = masks_qc.float() @ project.bias.float()
        logits = (masks_qc @ project.weight[:, :, 0, 0]) @ pixels_nchw[0].flatten(1)
        return (logits.float() + bias[:, None]).unflatten(1, (4 * self.grid, 4 * self.grid))
