"""Stage 2: the shared features, conditioned for each object on what the memory bank recalls.

Follows `Sam3TrackerVideoModel._prepare_memory_conditioned_features` and `Sam3TrackerVideoMemoryAttention`. Two exact
rewrites: attention runs over the raw memory channels and `W_o W_v` is applied afterwards (values are not rotated, and
a row's probabilities sum to 1), and the first layer's self-attention, which no object has touched yet, runs once.
"""

import torch
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..ops import attention, concat_tokens, rotate


class MemoryAttention(nn.Module):
    """Memory entries and object pointers of `N` objects to `conditioned_nlc` `[N, G * G, C]`.

    Inputs: `features_nlc` `[1, G * G, C]`; `memories`, `max_cond_frames + num_maskmem - 1` tensors
    `[N, G * G or 0, M]`; `pointers`, the pointers of the conditioning frames `[N, 4 p, M]` followed by
    `max_object_pointers - 1` tensors `[N, 4 or 0, M]`; `memory_time` i64 `[N, entries]`, the row of the temporal
    table of each non-empty memory in order; `pointer_time` f32 `[N, pointers]`, the frame distance of each pointer
    divided by the largest that counts; `value_padding` f32 `[1, 1, P]`, zeros that widen the attention's values.

    The output does not depend on `P`. On CUDA it has to be `C - M`: with values narrower than keys, ONNX Runtime's
    memory-efficient kernel, which serves where cuDNN's flash attention does not, is launched for the width of the
    values, and its output is wrong (seen with 1.26.0 and 1.31.1). Elsewhere `P` is 0, which is a third faster.
    """

    def __init__(self, model: Sam3TrackerVideoModel, precision: torch.dtype):
        super().__init__()
        config = model.config
        attention_config = model.memory_attention
        self.precision = precision
        self.tokens = (config.image_size // config.vision_config.backbone_config.patch_size) ** 2
        self.channels = config.memory_encoder_output_channels
        self.hidden = config.vision_config.fpn_hidden_size
        self.pointer_tokens = self.hidden // self.channels if self.channels < self.hidden else 1
        self.module = attention_config
        self.time_embedding = model.memory_temporal_positional_encoding
        self.pointer_projection = model.temporal_positional_encoding_projection_layer
        self.use_pointer_time = config.enable_temporal_pos_encoding_for_object_pointers

        grid = int(self.tokens**0.5)
        cos, sin = attention_config.rotary_emb(torch.zeros(1), attention_config.position_ids)
        self.register_buffer("cos", cos[0, :, ::2].clone(), persistent=False)
        self.register_buffer("sin", sin[0, :, ::2].clone(), persistent=False)
        shape = (1, self.hidden, grid, grid)
        image_position = model.vision_encoder.neck.position_encoding(shape, "cpu", torch.float32)
        self.register_buffer("image_position", 0.1 * image_position.flatten(2).transpose(1, 2), persistent=False)
        shape = (1, self.channels, grid, grid)
        memory_position = model.memory_encoder.position_encoding(shape, "cpu", torch.float32)
        self.register_buffer("memory_position", memory_position.flatten(2).transpose(1, 2)[:, None], persistent=False)
        # 10000 ** (2 (i // 2) / n), as `get_1d_sine_pe`.
        half = self.hidden // 2
        wavelength = 10000 ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)
        self.register_buffer("wavelength", wavelength, persistent=False)

    def _pointer_position(self, pointer_time: Tensor) -> Tensor:
        # Sines of frame distances in float32: a half-precision angle would move a pointer by a frame.
        angle = pointer_time.unsqueeze(-1) / self.wavelength
        sine = torch.cat((angle.sin(), angle.cos()), dim=-1).to(self.precision)
        return self.pointer_projection(sine)

    def _key_tables(self, entries: int | torch.SymInt, pointers: int | torch.SymInt) -> tuple[Tensor, Tensor]:
        """Rotary tables of all keys, `[keys, head_dim / 2]`: each memory's as the image's, pointers stay unrotated."""
        half = self.cos.shape[1]
        cos, sin = (
            table.expand(entries, -1, -1).reshape(entries * self.tokens, half) for table in (self.cos, self.sin)
        )
        none = self.cos.new_zeros(pointers, half)
        return torch.cat((cos, none + 1)), torch.cat((sin, none))

    def _output(self, module: nn.Module, mixed_tm: Tensor) -> Tensor:
        """What attention over raw memories `[tokens, M]` tells, `[tokens, C]`."""
        if self.training:
            return module.o_proj(module.v_proj(mixed_tm))
        weight, bias = module.folded
        return torch.addmm(bias, mixed_tm, weight)

    def fold(self) -> None:
        """Multiplies `W_o` and `W_v` once, in float64; needed before `forward` in evaluation mode."""
        for layer in self.module.layers:
            module = layer.cross_attn_image
            w_o, w_v = module.o_proj.weight.double(), module.v_proj.weight.double()
            bias = w_o @ module.v_proj.bias.double() + module.o_proj.bias.double()
            dtype = module.o_proj.weight.dtype
            module.folded = nn.ParameterList(
                nn.Parameter(tensor.detach().to(dtype), requires_grad=False) for tensor in ((w_o @ w_v).T, bias)
            )

    def forward(
        self,
        features_nlc: Tensor,
        memories: list[Tensor],
        pointers: list[Tensor],
        memory_time: Tensor,
        pointer_time: Tensor,
        value_padding: Tensor | None = None,
    ) -> Tensor:
        objects, entries = memory_time.shape
        tokens, channels = self.tokens, self.channels
        memory = concat_tokens(memories, entries * tokens).to(self.precision)
        # [N, 4 p, M]: every pointer is split into tokens of the memory's width.
        pointer = concat_tokens(pointers, pointer_time.shape[1] * self.pointer_tokens)

        time = self.time_embedding[:, 0, 0][memory_time].unsqueeze(2)
        placed = memory.view(objects, entries, tokens, channels) + (self.memory_position + time)
        placed_pointer = pointer
        if self.use_pointer_time:
            position = self._pointer_position(pointer_time)
            placed_pointer = pointer + position.repeat_interleave(self.pointer_tokens, dim=1)
        placed = torch.cat((placed.view(objects, entries * tokens, channels), placed_pointer), dim=1)
        values = torch.cat((memory, pointer), dim=1)
        if value_padding is not None:
            zeros = value_padding.to(self.precision).expand(objects, values.shape[1], -1)
            values = torch.cat((values, zeros), dim=2)
        length = placed.shape[1]
        placed_tc = placed.flatten(0, 1)
        cos, sin = self._key_tables(entries, pointer.shape[1])

        # Tokens of all objects in one axis: a linear layer is one operator then.
        x_tc = (features_nlc + self.image_position).flatten(0, 1)
        for index, layer in enumerate(self.module.layers):
            self_attention, cross_attention = layer.self_attn, layer.cross_attn_image
            normed = layer.layer_norm1(x_tc)
            query, key, value = (
                projection(normed).view(-1, tokens, self.hidden)
                for projection in (self_attention.q_proj, self_attention.k_proj, self_attention.v_proj)
            )
            query, key = rotate(query, self.cos, self.sin), rotate(key, self.cos, self.sin)
            mixed = attention(query, key, value, 1, self_attention.scaling).view(x_tc.shape)
            x_tc = x_tc + self_attention.o_proj(mixed)

            # Keys stand before queries: of the inputs of an operator, ONNX Runtime runs the way to the later one first,
            # and would make the keys of all layers, the largest tensors here, before the first layer.
            key = rotate(cross_attention.k_proj(placed_tc).view(objects, length, self.hidden), cos, sin)
            query = cross_attention.q_proj(layer.layer_norm2(x_tc)).view(-1, tokens, self.hidden)
            query = rotate(query, self.cos, self.sin)
            if index == 0:
                query = query.expand(objects, -1, -1)
            mixed = attention(query, key, values, 1, cross_attention.scaling)
            told = self._output(cross_attention, mixed[:, :, :channels].flatten(0, 1))
            if index == 0:
                shared = x_tc.view(-1, tokens, self.hidden)
                x_tc = (shared + told.view(objects, tokens, self.hidden)).flatten(0, 1)
            else:
                x_tc = x_tc + told
            x_tc = x_tc + layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(x_tc))))
        return self.module.layer_norm(x_tc).view(objects, tokens, self.hidden)
