"""Golden vectors of the detector's graphs: what the unpatched reference computes on one image, stage by stage.

Runs in a process of its own (`python -m snow_export.golden_detector`) and imports nothing of the export's stages:
modules of the model are watched, none is replaced.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .golden import INPUT, OUTPUT, make_clip
from .reference_detector import detect, inputs_for, load_detector, load_processor

TEXT = "a round object"
BOXES = [{"box": [18.0, 28.0, 62.0, 72.0], "label": 1}, {"box": [90.0, 60.0, 150.0, 118.0], "label": 0}]
# Masks of so many candidates.
FOUND = 5


def watch(module: torch.nn.Module, seen: dict, name: str) -> None:
    """Keeps a module's last output."""
    module.register_forward_hook(lambda *call: seen.__setitem__(name, call[-1]))


def stages(checkpoint: str, size: int, preprocess: dict) -> dict[str, dict[str, torch.Tensor]]:
    """The graphs' inputs and outputs."""
    model = load_detector(checkpoint, size)
    processor = load_processor(checkpoint, size, preprocess["mean"], preprocess["std"])
    seen: dict = {}
    parts = {
        "vision": model.vision_encoder,
        "text": model.text_projection,
        "geometry": model.geometry_encoder,
        "encoder": model.detr_encoder,
        "decoder": model.detr_decoder,
    }
    for name, module in parts.items():
        watch(module, seen, name)
    inputs = inputs_for(processor, make_clip(1)[0][0], TEXT, BOXES)
    found = detect(model, inputs)

    length = int(inputs["attention_mask"].sum())
    text_nlc = seen["text"][:, :length]
    geometry_nlc = seen["geometry"].last_hidden_state
    prompt_nlc = torch.cat((text_nlc, geometry_nlc), dim=1)
    levels = {f"level_{index}_nchw": level for index, level in enumerate(seen["vision"].fpn_hidden_states[:3])}
    queries_qc = seen["decoder"].intermediate_hidden_states[-1][0]
    encoded_nlc = seen["encoder"].last_hidden_state

    def graph(given: dict, got: dict) -> dict:
        return {INPUT + key: value for key, value in given.items()} | {
            OUTPUT + key: value for key, value in got.items()
        }

    coarse = {"level_2_nchw": levels["level_2_nchw"]}
    return {
        "text_encoder": graph({"token_ids": inputs["input_ids"][:, :length]}, {"text_nlc": text_nlc}),
        "detector_features": graph({"backbone_nlc": seen["vision"].last_hidden_state}, levels),
        "geometry_encoder": graph(
            {**coarse, "boxes": inputs["input_boxes"], "box_labels": inputs["input_boxes_labels"]},
            {"geometry_nlc": geometry_nlc},
        ),
        "detector": graph(
            {**coarse, "prompt_nlc": prompt_nlc},
            {
                "boxes": found["boxes"],
                "scores": found["scores"],
                "queries_qc": queries_qc,
                "encoded_nlc": encoded_nlc,
            },
        ),
        "detector_masks": graph(
            {
                **{key: levels[key] for key in ("level_0_nchw", "level_1_nchw")},
                "encoded_nlc": encoded_nlc,
                "prompt_nlc": prompt_nlc,
                "queries_qc": queries_qc[:FOUND],
            },
            {"mask_logits": found["mask_logits"][:FOUND]},
        ),
    }


def main() -> None:
    """Command line of the process that `snow-export` starts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--preprocess", type=json.loads, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in stages(arguments.checkpoint, arguments.res, arguments.preprocess).items():
        save_file(
            {key: value.detach().contiguous() for key, value in tensors.items()}, arguments.out / f"{name}.safetensors"
        )


if __name__ == "__main__":
    main()
