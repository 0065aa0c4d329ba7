"""Runs the unpatched reference's detector on images: `python -m snow_export.reference_detector`.

It uses nothing of the export but the reference's own helpers. Writes `NNNNN.safetensors` for each image: `scores` f32
`[queries]`, `boxes` f32 `[queries, 4]` (corners as shares of the image), and `mask_logits` f32 `[queries, h, w]`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, CLIPTokenizer, Sam3Processor
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor
from transformers.models.sam3.modeling_sam3 import Sam3Model

from .reference import read_frames


def load_detector(checkpoint: str, size: int) -> Sam3Model:
    """The reference detector at a resolution of `size` pixels, weights from the checkpoint, nothing replaced."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.image_size = size
    return Sam3Model.from_pretrained(checkpoint, config=config.detector_config, dtype=torch.float32).eval()


def load_processor(checkpoint: str, size: int, mean: list[float], std: list[float]) -> Sam3Processor:
    """The reference processor for images of `size` pixels, with the checkpoint's tokenizer."""
    images = Sam3ImageProcessor(size={"height": size, "width": size}, image_mean=mean, image_std=std)
    return Sam3Processor(images, CLIPTokenizer.from_pretrained(checkpoint), target_size=size)


def inputs_for(processor: Sam3Processor, image: np.ndarray, text: str | None, boxes: list[dict]) -> dict:
    """What the model takes for an image u8 `[h, w, 3]`; `boxes` are `{"box": [x1, y1, x2, y2], "label": 1 or 0}`."""
    given = {}
    if boxes:
        given["input_boxes"] = [[[float(value) for value in entry["box"]] for entry in boxes]]
        given["input_boxes_labels"] = [[int(entry.get("label", 1)) for entry in boxes]]
    taken = processor(images=image, text=text, return_tensors="pt", **given)
    names = ("pixel_values", "input_ids", "attention_mask", "input_boxes", "input_boxes_labels")
    return {name: taken[name] for name in names if name in taken}


@torch.inference_mode()
def detect(model: Sam3Model, inputs: dict) -> dict[str, torch.Tensor]:
    """Scores, boxes and mask logits of all candidates."""
    output = model(**inputs)
    return {
        "scores": (output.pred_logits.sigmoid() * output.presence_logits.sigmoid())[0],
        "boxes": output.pred_boxes[0],
        "mask_logits": output.pred_masks[0],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of images in name order")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--text")
    parser.add_argument("--boxes", type=json.loads, default=[], help='[{"box": [x1, y1, x2, y2], "label": 1}, …]')
    parser.add_argument("--mean", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--std", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = load_detector(arguments.checkpoint, arguments.res)
    processor = load_processor(arguments.checkpoint, arguments.res, arguments.mean, arguments.std)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(read_frames(arguments.images, None)):
        found = detect(model, inputs_for(processor, image, arguments.text, arguments.boxes))
        save_file(
            {name: value.contiguous() for name, value in found.items()}, arguments.out / f"{number:05d}.safetensors"
        )


if __name__ == "__main__":
    main()
