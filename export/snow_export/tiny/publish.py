"""Puts trained weights beside their model card, in half precision: `python -m snow_export.tiny.publish FROM TO`.

FROM is the `checkpoint/` of a tracker's training; `--detector` is the `detector.safetensors` of a detector that was
trained on it, or a published checkpoint whose detector stays, if the tracker kept its backbone (`--keep-backbone`).
The result is one `sam3_video` checkpoint with one backbone.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Sam3TrackerVideoModel

from .detector_model import join, new_detector, take_over, tokenizer
from .learner import write_tensors
from .model import trained_model


def publish(tracker: Path, detector: Path, target: Path) -> None:
    """Writes configuration, tokenizer and weights; what else is in `target` stays."""
    target.mkdir(parents=True, exist_ok=True)
    model = trained_model(tracker)
    found = new_detector(0, model, model.config.image_size, len(tokenizer()))
    if detector.is_dir():
        _expect_backbone(model, trained_model(detector), detector)
        take_over(found, detector)
    else:
        unknown = found.load_state_dict(load_file(detector), strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"{detector}: is of another detector: {', '.join(unknown[:4])}")
    partial = target.with_name(target.name + ".partial")
    join(model, found, partial)
    for path in partial.iterdir():
        # The library writes weights for their owner only.
        path.chmod(0o644)
        path.rename(target / path.name)
    partial.rmdir()


def _expect_backbone(model: Sam3TrackerVideoModel, other: Sam3TrackerVideoModel, folder: Path) -> None:
    """Raises `ValueError` unless both have the same backbone in half precision."""
    known = dict(other.vision_encoder.backbone.named_parameters())
    for name, value in model.vision_encoder.backbone.named_parameters():
        if not torch.equal(value.half(), known[name].half()):
            raise ValueError(
                f"{folder}: its detector is for another backbone than the tracker's ({name} differs): train a "
                "detector on this tracker, or the tracker with --keep-backbone"
            )


def add_to(checkpoint: Path, name: str, shift: float) -> None:
    """Adds a number to a tensor of a published checkpoint, in the tensor's own precision."""
    weights = load_file(checkpoint / "model.safetensors")
    weights[name] = weights[name] + shift
    write_tensors(checkpoint / "model.safetensors", weights, {"format": "pt"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tracker", type=Path, help="checkpoint/ of a training run, or the published one")
    parser.add_argument("target", type=Path, help="for example models/snow-tiny/checkpoint")
    parser.add_argument(
        "--detector",
        type=Path,
        required=True,
        help="detector.safetensors of its training, or a published checkpoint",
    )
    arguments = parser.parse_args()
    publish(arguments.tracker, arguments.detector, arguments.target)


if __name__ == "__main__":
    main()
