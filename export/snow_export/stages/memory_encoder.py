"""Stage 4: what a frame's masks leave in the memory bank.

Follows `Sam3TrackerVideoModel._encode_new_memory`. The reference resizes a decoded mask twice on the way in (to the
image's size, then to the encoder's); one matrix per axis, the product of both, does the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..ops import resize, resize_matrix
from .mask_decoder import MASK_PROMPT_BIAS, MASK_PROMPT_SCALE
from .plane_norm import with_plane_norms


class MemoryEncoder(nn.Module):
    """Masks of `N` objects to `memory_nlc` `[N, G * G, M]`, in the dtype that the bank keeps.

    Inputs: `features_nlc` `[1, G * G, C]`; `low_res_masks` f32 `[N, 4 G, 4 G]` logits of the decoder; `mask_prompt`
    f32 `[1, R, R]` of zeros and ones, which stands for the logits where `has_mask_prompt` bool `[1]` says so (then
    `N` is 1); `object_score` f32 `[N]`; `from_prompt` bool `[N]`: a prompt on this frame made the mask, which is then
    binarised. `with_direct` adds `direct` bool `[1]`: the logits are resized in one step, as `Sam3VideoModel` does.
    """

    def __init__(
        self, model: Sam3TrackerVideoModel, precision: torch.dtype, stored: torch.dtype, with_direct: bool = False
    ):
        super().__init__()
        config = model.config
        self.precision = precision
        self.stored = stored
        self.grid = config.image_size // config.vision_config.backbone_config.patch_size
        self.module = with_plane_norms(model.memory_encoder)
        self.occlusion = model.occlusion_spatial_embedding_parameter
        self.scale, self.bias = config.sigmoid_scale_for_mem_enc, config.sigmoid_bias_for_mem_enc
        low, image = model.prompt_encoder.mask_input_size[0], config.image_size
        self.target = 4 * low
        to_image = resize_matrix(low, image, antialias=False).double()
        to_target = resize_matrix(image, self.target, antialias=True).double()
        self.register_buffer("low_to_target", (to_target @ to_image).float(), persistent=False)
        if with_direct:
            matrix = resize_matrix(low, self.target, antialias=True)
            self.register_buffer("direct_low_to_target", matrix, persistent=False)

    def forward(
        self,
        features_nlc: Tensor,
        low_res_masks: Tensor,
        mask_prompt: Tensor,
        has_mask_prompt: Tensor,
        object_score: Tensor,
        from_prompt: Tensor,
        direct: Tensor | None = None,
    ) -> Tensor:
        # Resizing and the threshold stay in float32: half precision would move pixels across the threshold.
        matrix = self.low_to_target
        if direct is not None:
            matrix = torch.where(direct, self.direct_low_to_target, matrix)
        decoded = resize(low_res_masks, matrix)
        # Antialiasing changes nothing here: the encoder's masks are 8/7 of the image's size.
        given = (mask_prompt * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS).unsqueeze(1)
        given = F.interpolate(given, (self.target, self.target), mode="bilinear", align_corners=False)[:, 0]
        logits = torch.where(has_mask_prompt, given, decoded)
        binary = (logits > 0).float()
        mask = torch.where(from_prompt.view(-1, 1, 1), binary, logits.sigmoid())
        mask = (mask * self.scale + self.bias).unsqueeze(1).to(self.precision)

        features = features_nlc.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        memory = self.module.feature_projection(features) + self.module.mask_downsampler(mask)
        memory = self.module.projection(self.module.memory_fuser(memory))
        memory_nlc = memory.flatten(2).transpose(1, 2)
        if self.occlusion is not None:
            hidden = (object_score <= 0).to(self.precision).view(-1, 1, 1)
            memory_nlc = memory_nlc + hidden * self.occlusion
        return memory_nlc.to(self.stored)
