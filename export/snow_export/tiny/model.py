"""The architecture of snow-tiny and how it starts."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, Sam3TrackerVideoConfig, Sam3TrackerVideoModel

# Pixels that the tracker is trained and measured at, and the detector.
SIDES = (224, 336, 448, 560)
DETECTOR_SIDES = SIDES[:3]


def tiny_config(side: int = 224) -> Sam3TrackerVideoConfig:
    """The reference's configuration scaled down to about four million parameters."""
    config = Sam3TrackerVideoConfig(
        vision_config={
            "fpn_hidden_size": 128,
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 160,
                "intermediate_size": 384,
                "num_hidden_layers": 6,
                "num_attention_heads": 5,
                "window_size": 8,
                "global_attn_indexes": [1, 3, 5],
                "pretrain_image_size": 112,
                "image_size": side,
            },
        },
        prompt_encoder_config={"hidden_size": 128, "mask_input_channels": 16},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 256, "iou_head_hidden_dim": 128},
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=256,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=256,
    )
    config.image_size = side
    return config


def spread_weights(model: nn.Module) -> None:
    """Draws linear layers and convolutions as PyTorch does by default, with a spread that fits their width."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()


def new_model(seed: int) -> Sam3TrackerVideoModel:
    """A model ready to learn.

    As the classes initialise it, it learns nothing: the position embeddings of image and prompts are drawn apart, so
    that a prompt says nothing about a place, and the spread of 0.02 lets signals fade in a narrow model.
    """
    torch.manual_seed(seed)
    model = Sam3TrackerVideoModel(tiny_config())
    spread_weights(model)
    shared = model.shared_image_embedding.positional_embedding
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    with torch.no_grad():
        for name in (
            "no_memory_embedding",
            "no_memory_positional_encoding",
            "memory_temporal_positional_encoding",
            "no_object_pointer",
            "occlusion_spatial_embedding_parameter",
        ):
            getattr(model, name).normal_(0, 0.02)
        for layer in model.memory_encoder.memory_fuser.layers:
            layer.scale.fill_(0.1)
        model.vision_encoder.backbone.embeddings.position_embeddings.normal_(0, 0.1)
    return model


def trained_model(folder: Path) -> Sam3TrackerVideoModel:
    """The tracker of a checkpoint that an earlier training wrote, or of the published one, in float32."""
    config = AutoConfig.from_pretrained(folder)
    config = getattr(config, "tracker_config", None) or config
    return Sam3TrackerVideoModel.from_pretrained(folder, config=config, dtype=torch.float32)


def resized(model: Sam3TrackerVideoModel, side: int) -> Sam3TrackerVideoModel:
    """A model of another side that shares all parameters with `model`."""
    other = Sam3TrackerVideoModel(tiny_config(side))
    share_parameters(model, other)
    buffers = dict(model.named_buffers())
    for name in ("shared_image_embedding", "prompt_encoder.shared_embedding"):
        other.get_submodule(name).positional_embedding = buffers[f"{name}.positional_embedding"]
    return other


def share_parameters(model: nn.Module, other: nn.Module) -> None:
    """Gives `other`, of the same architecture, the parameters of `model` themselves."""
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, parameter)
