"""SAM3's video tracker (`Sam3TrackerVideoModel`), alone or inside a `sam3_video` checkpoint."""

import torch
from transformers import Sam3TrackerVideoModel

from ..errors import ExportError
from ..onnx_writer import GraphSpec
from ..precision import Precision, lower
from ..stages.mask_decoder import NO_OBJECT_LOGIT, MaskDecoder
from ..stages.memory_attention import MemoryAttention
from ..stages.memory_encoder import MemoryEncoder
from ..stages.vision_encoder import VisionEncoder
from .loading import load_whole

NAME = "sam3_tracker_video"
MODEL_TYPES = ("sam3_video", "sam3_tracker_video")


def tracker_config(config):
    """The tracker's own configuration, whichever of the two checkpoint types it came from."""
    return config.tracker_config if config.model_type == "sam3_video" else config


def patch_and_window(config) -> tuple[int, int]:
    """Patch size in pixels and attention window in patches."""
    backbone = tracker_config(config).vision_config.backbone_config
    return int(backbone.patch_size), int(backbone.window_size)


def load_model(path: str, config) -> Sam3TrackerVideoModel:
    """The unpatched reference model in float32, evaluation mode, every parameter from the checkpoint."""
    return load_whole(Sam3TrackerVideoModel, path, tracker_config(config), "the tracker")


def check_supported(config) -> None:
    """Rejects configurations whose graphs would not be the reference's."""
    tracker = tracker_config(config)
    hidden, channels = tracker.vision_config.fpn_hidden_size, tracker.memory_encoder_output_channels
    expected = {
        "memory_attention_num_attention_heads": (tracker.memory_attention_num_attention_heads == 1, "1"),
        "num_maskmem": (tracker.num_maskmem >= 2, "2 or more"),
        "max_cond_frame_num": (tracker.max_cond_frame_num >= 1, "1 or more"),
        "max_object_pointers_in_encoder": (tracker.max_object_pointers_in_encoder >= 2, "2 or more"),
        "memory_encoder_output_channels": (tracker.memory_encoder_output_channels == 64, "64, as the reference has it"),
        # The reference itself fails on pointers that are no wider than a memory.
        "fpn_hidden_size": (hidden > channels and hidden % channels == 0, f"a multiple of {channels} above it"),
        "layer_scale_init_value": (tracker.vision_config.backbone_config.layer_scale_init_value is None, "null"),
    }
    for name, (fine, wanted) in expected.items():
        if not fine:
            raise ExportError(f"config.json: {name} is not supported, expected {wanted}")


def manifest_policy(config) -> dict:
    """The memory policy with its parameters, as the manifest states it."""
    tracker = tracker_config(config)
    hidden, channels = tracker.vision_config.fpn_hidden_size, tracker.memory_encoder_output_channels
    return {
        "name": "sam2_memory_bank",
        "num_maskmem": tracker.num_maskmem,
        "max_cond_frames": tracker.max_cond_frame_num,
        "max_object_pointers": tracker.max_object_pointers_in_encoder,
        "pointer_tokens": hidden // channels if channels < hidden else 1,
        "multimask_output_in_sam": tracker.multimask_output_in_sam,
        "multimask_output_for_tracking": tracker.multimask_output_for_tracking,
        "multimask_min_points": tracker.multimask_min_pt_num,
        "multimask_max_points": tracker.multimask_max_pt_num,
    }


def manifest_masks(model: Sam3TrackerVideoModel) -> dict:
    """Mask sizes in pixels, and thresholds."""
    return {
        "low_res": model.prompt_encoder.mask_input_size[0],
        "prompt_size": model.config.image_size,
        "prompt_threshold": 0.5,
        "threshold": 0.0,
        "no_object_logit": NO_OBJECT_LOGIT,
    }


def manifest_memory(model: Sam3TrackerVideoModel, precision: Precision) -> dict:
    """Shape and dtype of one memory entry of one object."""
    stored = str(precision.stored).removeprefix("torch.")
    tokens = (model.config.image_size // model.config.vision_config.backbone_config.patch_size) ** 2
    return {
        "tokens": tokens,
        "channels": model.config.memory_encoder_output_channels,
        "dtype": stored,
        "rounding": stored,
    }


def graphs(
    model: Sam3TrackerVideoModel, preprocess: dict, precision: Precision, for_detector: bool = False
) -> list[GraphSpec]:
    """The four graphs of the tracker. The model is consumed: its parameters are converted in place.

    `for_detector`: the vision encoder gives out the backbone's tokens, from which a detector starts, and the memory
    encoder takes masks as `Sam3VideoModel` gives them to it.
    """
    config = model.config
    size = config.image_size
    grid = size // config.vision_config.backbone_config.patch_size
    tokens, hidden, channels = grid * grid, config.vision_config.fpn_hidden_size, config.memory_encoder_output_channels
    low = model.prompt_encoder.mask_input_size[0]
    pointer_tokens = manifest_policy(config)["pointer_tokens"]
    dtype = precision.weights

    vision = VisionEncoder(model, preprocess["mean"], preprocess["std"], preprocess["scale"], for_detector)
    memory_attention = MemoryAttention(model, dtype)
    for stage in (vision, memory_attention):
        stage.fold()
    decoder = MaskDecoder(model, dtype)
    memory_encoder = MemoryEncoder(model, dtype, precision.stored, with_direct=for_detector)
    for stage in (vision, memory_attention, decoder, memory_encoder):
        lower(stage, precision)

    # Example lengths are never 0 or 1: the exporter would take those for constants.
    n, p = 2, 3
    objects = {0: "objects"}
    features = (torch.zeros(1, tokens, hidden, dtype=dtype), {})
    high_res_0 = (torch.zeros(1, hidden // 8, 4 * grid, 4 * grid, dtype=dtype), {})
    high_res_1 = (torch.zeros(1, hidden // 4, 2 * grid, 2 * grid, dtype=dtype), {})

    memory_slots = {
        f"memory_{i}": (
            torch.zeros(n, tokens, channels, dtype=precision.stored),
            {0: "objects", 1: f"memory_tokens_{i}"},
        )
        for i in range(config.max_cond_frame_num + config.num_maskmem - 1)
    }
    pointer_names = ["pointers_cond"] + [f"pointers_{i}" for i in range(1, config.max_object_pointers_in_encoder)]
    pointer_slots = {
        name: (
            torch.zeros(n, 2 * pointer_tokens, channels, dtype=dtype),
            {0: "objects", 1: name.replace("pointers", "pointer_tokens")},
        )
        for name in pointer_names
    }
    memory_time = torch.zeros(n, len(memory_slots), dtype=torch.int64)
    pointer_time = torch.zeros(n, 2 * len(pointer_slots))
    return [
        GraphSpec(
            role="vision_encoder",
            stage=vision,
            inputs={"image": (torch.zeros(1, size, size, 3, dtype=torch.uint8), {})},
            outputs=["features_nlc", "features_no_memory_nlc", "high_res_0_nchw", "high_res_1_nchw"]
            + ["backbone_nlc"] * for_detector,
        ),
        GraphSpec(
            role="memory_attention",
            stage=memory_attention,
            inputs={
                "features_nlc": features,
                **memory_slots,
                **pointer_slots,
                "memory_time": (memory_time, {0: "objects", 1: "entries"}),
                "pointer_time": (pointer_time, {0: "objects", 1: "pointers"}),
                "value_padding": (torch.zeros(1, 1, hidden - channels), {2: "value_padding"}),
            },
            arguments=[
                "features_nlc",
                list(memory_slots),
                list(pointer_slots),
                "memory_time",
                "pointer_time",
                "value_padding",
            ],
            outputs=["conditioned_nlc"],
            output_axes={"conditioned_nlc": objects},
        ),
        GraphSpec(
            role="mask_decoder",
            stage=decoder,
            inputs={
                "embeddings_nlc": (torch.zeros(n, tokens, hidden, dtype=dtype), objects),
                "high_res_0_nchw": high_res_0,
                "high_res_1_nchw": high_res_1,
                "point_coords": (torch.zeros(n, p, 2), {0: "objects", 1: "points"}),
                "point_labels": (torch.zeros(n, p, dtype=torch.int64), {0: "objects", 1: "points"}),
                "mask_prompt": (torch.zeros(1, size, size), {}),
                "has_mask_prompt": (torch.zeros(1, dtype=torch.bool), {}),
                "multimask": (torch.zeros(1, dtype=torch.bool), {}),
            },
            outputs=["low_res_masks", "object_score", "iou", "pointers"],
            output_axes=dict.fromkeys(("low_res_masks", "object_score", "iou", "pointers"), objects),
        ),
        GraphSpec(
            role="memory_encoder",
            stage=memory_encoder,
            inputs={
                "features_nlc": features,
                "low_res_masks": (torch.zeros(n, low, low), objects),
                "mask_prompt": (torch.zeros(1, size, size), {}),
                "has_mask_prompt": (torch.zeros(1, dtype=torch.bool), {}),
                "object_score": (torch.zeros(n), objects),
                "from_prompt": (torch.zeros(n, dtype=torch.bool), objects),
                **({"direct": (torch.zeros(1, dtype=torch.bool), {})} if for_detector else {}),
            },
            outputs=["memory_nlc"],
            output_axes={"memory_nlc": objects},
        ),
    ]
