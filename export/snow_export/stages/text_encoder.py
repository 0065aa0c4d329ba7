"""The words of a prompt to the features that the detector looks for.

Follows `CLIPTextModel` and `Sam3Model.get_text_features` of transformers. The reference pads every text to the greatest
length and masks the padding everywhere: attention looks back only, so padding never changes a word, and all later
stages leave it out. Here a text is as long as it is, and nothing is masked but what comes later.
"""

import torch
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3Model


class TextEncoder(nn.Module):
    """`token_ids` i64 `[1, tokens]`, start and end token included, to `text_nlc` `[1, tokens, C]`."""

    def __init__(self, model: Sam3Model, dtype: torch.dtype):
        super().__init__()
        # A later version of the library keeps the model without the wrapper around it.
        self.text = getattr(model.text_encoder, "text_model", model.text_encoder)
        self.projection = model.text_projection
        self.dtype = dtype
        longest = model.text_encoder.config.max_position_embeddings
        later = torch.full((longest, longest), -1e4).triu(diagonal=1)
        self.register_buffer("later", later, persistent=False)

    def _attend(self, module: nn.Module, x_lc: Tensor, later: Tensor) -> Tensor:
        split = (-1, module.num_heads, module.head_dim)
        query, key, value = (
            projection(x_lc).view(split).transpose(0, 1) for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        scores = query @ key.transpose(1, 2) * module.scale + later
        mixed = scores.softmax(dim=-1) @ value
        return module.out_proj(mixed.transpose(0, 1).flatten(1))

    def forward(self, token_ids: Tensor) -> Tensor:
        tokens = token_ids.shape[1]
        embeddings = self.text.embeddings
        x_lc = embeddings.token_embedding(token_ids[0]) + embeddings.position_embedding.weight[:tokens]
        later = self.later[:tokens, :tokens]
        for layer in self.text.encoder.layers:
            x_lc = x_lc + self._attend(layer.self_attn, layer.layer_norm1(x_lc), later)
            x_lc = x_lc + layer.mlp(layer.layer_norm2(x_lc))
        return self.projection(self.text.final_layer_norm(x_lc))[None]
