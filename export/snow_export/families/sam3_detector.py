"""SAM3's detector (`Sam3Model`) inside a `sam3_video` checkpoint: what is found from text and boxes.

It shares the vision encoder of the tracker's bundle, which gives out the backbone's tokens for it.
"""

import torch
from transformers.models.sam3.modeling_sam3 import Sam3Model

from ..errors import ExportError
from ..onnx_writer import GraphSpec
from ..precision import Precision, lower
from ..stages.detector import Detector, DetectorFeatures, DetectorMasks
from ..stages.geometry_encoder import GeometryEncoder
from ..stages.text_encoder import TextEncoder
from .loading import load_whole

MODEL_TYPES = ("sam3_video",)

# Parameters of the loop that follows what is found, as config.json names them.
LOOP = {
    "score_threshold": "score_threshold_detection",
    "nms_iou": "det_nms_thresh",
    "match_iou": "assoc_iou_thresh",
    "track_match_iou": "trk_assoc_iou_thresh",
    "new_object_score": "new_det_thresh",
    "recondition_on_track_masks": "recondition_on_trk_masks",
    "recondition_every": "recondition_every_nth_frame",
    "recondition_score": "high_conf_thresh",
    "recondition_iou": "high_iou_thresh",
    "hotstart_delay": "hotstart_delay",
    "hotstart_unmatched": "hotstart_unmatch_thresh",
    "hotstart_duplicate": "hotstart_dup_thresh",
    "suppress_unmatched_only_within_hotstart": "suppress_unmatched_only_within_hotstart",
    "keep_alive_init": "init_trk_keep_alive",
    "keep_alive_max": "max_trk_keep_alive",
    "keep_alive_min": "min_trk_keep_alive",
    "keep_alive_falls_when_empty": "decrease_trk_keep_alive_for_empty_masklets",
    "occlusion_iou": "suppress_overlapping_based_on_recent_occlusion_threshold",
    "fill_hole_area": "fill_hole_area",
    "max_objects": "max_num_objects",
}


def check_supported(config) -> None:
    """Rejects configurations whose graphs would not be the reference's."""
    detector = config.detector_config
    expected = {
        "text_config.model_type": (detector.text_config.model_type == "clip_text_model", "clip_text_model"),
        "vision_config.scale_factors": (
            list(detector.vision_config.scale_factors) == [4.0, 2.0, 1.0, 0.5],
            "4, 2, 1 and 0.5",
        ),
    }
    for name, (fine, wanted) in expected.items():
        if not fine:
            raise ExportError(f"config.json: detector_config.{name} is not supported, expected {wanted}")


def load_model(path: str, config) -> Sam3Model:
    """The unpatched reference model in float32, evaluation mode, every parameter from the checkpoint."""
    return load_whole(Sam3Model, path, config.detector_config, "the detector")


def manifest_detector(config) -> dict:
    """What a program has to know of the detector, as the manifest states it; without the tokenizer's file."""
    detector = config.detector_config
    return {
        "queries": detector.detr_decoder_config.num_queries,
        "max_text_tokens": detector.text_config.max_position_embeddings,
        "hidden": detector.detr_decoder_config.hidden_size,
        # The reference's processor takes this word where only boxes are given.
        "boxes_only_text": "visual",
        "loop": {name: getattr(config, key) for name, key in LOOP.items()},
    }


def graphs(model: Sam3Model, config, precision: Precision) -> list[GraphSpec]:
    """The five graphs of the detector. The model is consumed: its parameters are converted in place."""
    detector = config.detector_config
    backbone = detector.vision_config.backbone_config
    grid = detector.image_size // backbone.patch_size
    hidden, dtype = detector.detr_decoder_config.hidden_size, precision.weights

    stages = {
        "text_encoder": TextEncoder(model, dtype),
        "detector_features": DetectorFeatures(model, grid),
        "geometry_encoder": GeometryEncoder(model, grid, dtype),
        "detector": Detector(model, grid, dtype),
        "detector_masks": DetectorMasks(model, grid),
    }
    for stage in stages.values():
        lower(stage, precision)

    # Example lengths are never 0 or 1: the exporter would take those for constants.
    level_0, level_1, level_2 = (
        (torch.zeros(1, hidden, side, side, dtype=dtype), {}) for side in (4 * grid, 2 * grid, grid)
    )
    prompt = (torch.zeros(1, 5, hidden, dtype=dtype), {1: "prompt_tokens"})
    encoded = (torch.zeros(1, grid * grid, hidden, dtype=dtype), {})
    return [
        GraphSpec(
            role="text_encoder",
            stage=stages["text_encoder"],
            inputs={"token_ids": (torch.zeros(1, 5, dtype=torch.int64), {1: "text_length"})},
            outputs=["text_nlc"],
            output_axes={"text_nlc": {1: "text_length"}},
        ),
        GraphSpec(
            role="detector_features",
            stage=stages["detector_features"],
            inputs={"backbone_nlc": (torch.zeros(1, grid * grid, backbone.hidden_size, dtype=dtype), {})},
            outputs=["level_0_nchw", "level_1_nchw", "level_2_nchw"],
        ),
        GraphSpec(
            role="geometry_encoder",
            stage=stages["geometry_encoder"],
            inputs={
                "level_2_nchw": level_2,
                "boxes": (torch.full((1, 3, 4), 0.5), {1: "boxes"}),
                "box_labels": (torch.zeros(1, 3, dtype=torch.int64), {1: "boxes"}),
            },
            outputs=["geometry_nlc"],
            output_axes={"geometry_nlc": {1: "geometry_length"}},
        ),
        GraphSpec(
            role="detector",
            stage=stages["detector"],
            inputs={"level_2_nchw": level_2, "prompt_nlc": prompt},
            outputs=["boxes", "scores", "queries_qc", "encoded_nlc"],
        ),
        GraphSpec(
            role="detector_masks",
            stage=stages["detector_masks"],
            inputs={
                "level_0_nchw": level_0,
                "level_1_nchw": level_1,
                "encoded_nlc": encoded,
                "prompt_nlc": prompt,
                "queries_qc": (torch.zeros(3, hidden, dtype=dtype), {0: "found"}),
            },
            outputs=["mask_logits"],
            output_axes={"mask_logits": {0: "found"}},
        ),
    ]
