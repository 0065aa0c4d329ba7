"""Stage 3: conditioned features and prompts to a mask, a score and an object pointer per object.

Follows `Sam3TrackerVideoModel._single_frame_forward` and `_use_mask_as_output` with the prompt encoder and the mask
decoder. Both outcomes of a choice that the caller makes at run time (several masks or one, a mask prompt or none) are
in the graph.
"""

import math

import torch
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..ops import attention, resize, resize_matrix
from .plane_norm import with_plane_norms

# Logits that stand for a mask given by the user, and for an object that is not there (constants of the reference).
MASK_PROMPT_SCALE, MASK_PROMPT_BIAS = 20.0, -10.0
NO_OBJECT_LOGIT = -1024.0


def project_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`Sam3TrackerVideoAttention` on `[batch, tokens, channels]` tensors."""
    mixed = attention(
        module.q_proj(query), module.k_proj(key), module.v_proj(value), module.num_attention_heads, module.scaling
    )
    return module.o_proj(mixed)


class MaskDecoder(nn.Module):
    """Masks of `N` objects from `embeddings_nlc` `[N, G * G, C]` and the shared high-resolution features.

    Inputs: `point_coords` f32 `[N, P, 2]` in pixels of the model's image, `point_labels` i64 `[N, P]` (1 object, 0 not,
    2 and 3 a box's corners, -1 no point), `mask_prompt` f32 `[1, R, R]` of zeros and ones with `has_mask_prompt` bool
    `[1]` (then `N` is 1), `multimask` bool `[1]`: whether the best of the three alternative masks is taken.
    Outputs, all float32 but the last: `low_res_masks` `[N, 4 G, 4 G]` logits, `object_score` `[N]` logit, `iou` `[N]`
    predicted, `pointers` `[N, 4, M]`.
    """

    def __init__(self, model: Sam3TrackerVideoModel, precision: torch.dtype):
        super().__init__()
        config = model.config
        self.precision = precision
        self.size = config.image_size
        self.grid = self.size // config.vision_config.backbone_config.patch_size
        self.low_res = model.prompt_encoder.mask_input_size[0]
        self.hidden = config.vision_config.fpn_hidden_size
        channels = config.memory_encoder_output_channels
        self.pointer_tokens = self.hidden // channels if channels < self.hidden else 1
        self.prompt = model.prompt_encoder
        self.decoder = with_plane_norms(model.mask_decoder)
        self.mask_downsample = model.mask_downsample
        self.pointer_projection = model.object_pointer_proj
        self.no_object_pointer = model.no_object_pointer
        with torch.no_grad():
            position = model.get_image_wide_positional_embeddings().float()
        self.register_buffer("image_position", position.flatten(2).transpose(1, 2).clone(), persistent=False)
        self.register_buffer("mask_to_low", resize_matrix(self.size, self.low_res, antialias=True), persistent=False)
        quarter = (self.size - self.mask_downsample.kernel_size[0]) // self.mask_downsample.stride[0] + 1
        self.register_buffer("quarter_to_low", resize_matrix(quarter, self.low_res, antialias=True), persistent=False)

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        # Float32 island: the angles reach dozens of radians, where half precision has lost the position.
        coords = torch.cat((coords + 0.5, coords.new_zeros(coords.shape[0], 1, 2)), dim=1)
        labels = torch.cat((labels, labels.new_full((labels.shape[0], 1), -1)), dim=1)
        gaussian = self.prompt.shared_embedding.positional_embedding.float()
        angle = (2 * (coords / self.size) - 1) @ gaussian * (2 * math.pi)
        embedded = torch.cat((angle.sin(), angle.cos()), dim=-1)
        label = labels.unsqueeze(-1)
        embedded = torch.where(label == -1, self.prompt.not_a_point_embed.weight.float(), embedded)
        added = self.prompt.point_embed.weight.float()[labels.clamp(min=0)]
        return (embedded + torch.where(label >= 0, added, torch.zeros_like(added))).to(self.precision)

    def _embed_dense(self, mask_prompt: Tensor, has_mask_prompt: Tensor) -> Tensor:
        quarter = self.mask_downsample(mask_prompt.unsqueeze(1).to(self.precision))
        embedded = self.prompt.mask_embed(resize(quarter, self.quarter_to_low))
        none = self.prompt.no_mask_embed.weight.view(1, -1, 1, 1)
        return torch.where(has_mask_prompt, embedded, none).flatten(2).transpose(1, 2)

    def _transform(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        transformer = self.decoder.transformer
        position = self.image_position
        queries, keys = tokens, image
        for layer in transformer.layers:
            if layer.skip_first_layer_pe:
                queries = project_attention(layer.self_attn, queries, queries, queries)
            else:
                placed = queries + tokens
                queries = queries + project_attention(layer.self_attn, placed, placed, queries)
            queries = layer.layer_norm1(queries)
            placed = keys + position
            mixed = project_attention(layer.cross_attn_token_to_image, queries + tokens, placed, keys)
            queries = layer.layer_norm2(queries + mixed)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            mixed = project_attention(layer.cross_attn_image_to_token, placed, queries + tokens, queries)
            keys = layer.layer_norm4(keys + mixed)
        final = transformer.final_attn_token_to_image
        mixed = project_attention(final, queries + tokens, keys + position, keys)
        return transformer.layer_norm_final_attn(queries + mixed), keys

    def _choose(self, masks: Tensor, iou: Tensor, multimask: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the mask, and of the token that becomes the pointer, `[N]` each."""
        best = 1 + iou[:, 1:].argmax(dim=1)
        single = torch.zeros_like(best)
        choice = single
        if self.decoder.dynamic_multimask_via_stability:
            # Float32 island: areas count pixels, and half precision ends at 65504.
            delta = self.decoder.dynamic_multimask_stability_delta
            logits = masks[:, 0].flatten(1)
            inner = (logits > delta).float().sum(dim=1)
            outer = (logits > -delta).float().sum(dim=1)
            stability = torch.where(outer > 0, inner / outer.clamp(min=1.0), torch.ones_like(outer))
            choice = torch.where(stability >= self.decoder.dynamic_multimask_stability_thresh, single, best)
        return torch.where(multimask, best, choice), torch.where(multimask, best, single)

    def predict(
        self,
        embeddings_nlc: Tensor,
        high_res_0_nchw: Tensor,
        high_res_1_nchw: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_prompt: Tensor,
        has_mask_prompt: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All candidates before one is chosen: masks `[N, 4, 4 G, 4 G]`, their predicted IoU `[N, 4]`, the object score
        `[N, 1]` and the mask tokens `[N, 4, C]`; the first candidate is the single mask. Training supervises these.
        """
        decoder = self.decoder
        objects = embeddings_nlc.shape[0]
        sparse = self._embed_points(point_coords, point_labels)
        fixed = torch.cat((decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight))
        tokens = torch.cat((fixed.unsqueeze(0).expand(objects, -1, -1), sparse), dim=1)
        image = embeddings_nlc + self._embed_dense(mask_prompt, has_mask_prompt)
        tokens, image = self._transform(tokens, image)
        mask_tokens = tokens[:, 2 : 2 + decoder.num_mask_tokens]

        image_nchw = image.transpose(1, 2).reshape(objects, self.hidden, self.grid, self.grid)
        upscaled = decoder.upscale_conv1(image_nchw) + high_res_1_nchw
        upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
        upscaled = decoder.activation(decoder.upscale_conv2(upscaled) + high_res_0_nchw)
        weights = [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        low = self.low_res
        masks = torch.stack(weights, dim=1) @ upscaled.flatten(2)
        masks = masks.view(objects, decoder.num_mask_tokens, low, low)
        iou = decoder.iou_prediction_head(tokens[:, 1])
        score = decoder.pred_obj_score_head(tokens[:, 0])
        return masks, iou, score, mask_tokens

    def forward(
        self,
        embeddings_nlc: Tensor,
        high_res_0_nchw: Tensor,
        high_res_1_nchw: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_prompt: Tensor,
        has_mask_prompt: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        objects, low = embeddings_nlc.shape[0], self.low_res
        masks, iou, score, mask_tokens = self.predict(
            embeddings_nlc,
            high_res_0_nchw,
            high_res_1_nchw,
            point_coords,
            point_labels,
            mask_prompt,
            has_mask_prompt,
        )
        mask_choice, token_choice = self._choose(masks, iou, multimask)
        mask = masks.gather(1, mask_choice.view(-1, 1, 1, 1).expand(-1, 1, low, low))[:, 0].float()
        chosen_iou = iou.gather(1, mask_choice.unsqueeze(1))[:, 0].float()
        token = mask_tokens.gather(1, token_choice.view(-1, 1, 1).expand(-1, 1, self.hidden))[:, 0]

        appears = (score > 0).to(self.precision)
        pointer = appears * self.pointer_projection(token) + (1 - appears) * self.no_object_pointer
        mask = torch.where(score.unsqueeze(-1) > 0, mask, torch.full_like(mask, NO_OBJECT_LOGIT))
        score = score[:, 0].float()

        given = (mask_prompt.flatten(1) > 0).any(dim=1)
        given_logits = resize(mask_prompt * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS, self.mask_to_low)
        given_score = MASK_PROMPT_SCALE * given.float() + MASK_PROMPT_BIAS
        given_here = given.to(self.precision).unsqueeze(1)
        given_pointer = given_here * pointer + (1 - given_here) * self.no_object_pointer
        mask = torch.where(has_mask_prompt, given_logits, mask)
        score = torch.where(has_mask_prompt, given_score, score)
        chosen_iou = torch.where(has_mask_prompt, torch.ones_like(chosen_iou), chosen_iou)
        pointer = torch.where(has_mask_prompt, given_pointer, pointer)
        return mask, score, chosen_iou, pointer.view(objects, self.pointer_tokens, -1)
