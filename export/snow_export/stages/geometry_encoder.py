"""Boxes that show what is meant, or what is not, to tokens beside those of the text.

Follows `Sam3GeometryEncoder` of transformers. It runs only where there are boxes: without any, the reference leaves out
its class token too. All boxes are real, so nothing is masked.
"""

import torch
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3Model, box_cxcywh_to_xyxy

from ..ops import concat_tokens, roi_align
from .detector import attend, grid_positions


class GeometryEncoder(nn.Module):
    """Outputs `geometry_nlc` `[1, boxes + 1, C]`: the boxes' tokens and a class token.

    `level_2_nchw` `[1, C, G, G]` is the coarsest level of `DetectorFeatures`; `boxes` f32 `[1, boxes, 4]` are centre x,
    centre y, width and height as shares of the image; `box_labels` i64 `[1, boxes]` are 1 for what is meant, 0 for what
    is not.
    """

    def __init__(self, model: Sam3Model, grid: int, dtype: torch.dtype):
        super().__init__()
        self.encoder = model.geometry_encoder
        self.grid, self.dtype = grid, dtype
        self.register_buffer("position_nlc", grid_positions(self.encoder.hidden_size, grid), persistent=False)

    def forward(self, level_2_nchw: Tensor, boxes: Tensor, box_labels: Tensor) -> Tensor:
        encoder, count = self.encoder, boxes.shape[1]
        image_nlc = level_2_nchw.flatten(2).transpose(1, 2)
        normed_nchw = encoder.vision_layer_norm(image_nlc).transpose(1, 2).unflatten(2, (self.grid, self.grid))

        corners = box_cxcywh_to_xyxy(boxes[0]) * self.grid
        # [boxes, C, roi, roi] is one row a box for a convolution as large as the region.
        pooled = roi_align(normed_nchw.float(), corners, encoder.roi_size).to(self.dtype)
        pool = encoder.boxes_pool_project
        pooled = nn.functional.linear(pooled.flatten(1), pool.weight.flatten(1), pool.bias)
        centre_x, centre_y, width, height = boxes[0].unbind(1)
        position = encoder._encode_box_coordinates(centre_x, centre_y, width, height)
        tokens = (
            encoder.boxes_direct_project(boxes[0].to(self.dtype))
            + pooled
            + encoder.boxes_pos_enc_project(position.to(self.dtype))
            + encoder.label_embed(box_labels[0])
        )
        x_nlc = concat_tokens([tokens[None], encoder.cls_embed.weight[None]], count + 1)
        x_nlc = encoder.prompt_layer_norm(encoder.final_proj(x_nlc))
        keys_nlc = image_nlc + self.position_nlc
        for layer in encoder.layers:
            normed = layer.layer_norm1(x_nlc)
            x_nlc = x_nlc + attend(layer.self_attn, normed, normed, normed)
            x_nlc = x_nlc + attend(layer.cross_attn, layer.layer_norm2(x_nlc), keys_nlc, image_nlc)
            x_nlc = x_nlc + layer.mlp(layer.layer_norm3(x_nlc))
        return encoder.output_layer_norm(x_nlc)
