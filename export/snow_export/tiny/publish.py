"""Puts trained weights beside their model card, in half precision: `python -m snow_export.tiny.publish FROM TO`.

FROM is the `checkpoint/` of a tracker's training; `--detector` is the `detector.safetensors` of a detector that was
trained on it. The result is one `sam3_video` checkpoint with one backbone.
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file

from .detector_model import join, new_detector, tokenizer
from .model import trained_model


def publish(tracker: Path, detector: Path, target: Path) -> None:
    """Writes configuration, tokenizer and weights; what else is in `target` stays."""
    target.mkdir(parents=True, exist_ok=True)
    model = trained_model(tracker)
    found = new_detector(0, model, model.config.image_size, len(tokenizer()))
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tracker", type=Path, help="checkpoint/ of a training run, or the published one")
    parser.add_argument("target", type=Path, help="for example models/snow-tiny/checkpoint")
    parser.add_argument("--detector", type=Path, required=True, help="detector.safetensors of its training run")
    arguments = parser.parse_args()
    publish(arguments.tracker, arguments.detector, arguments.target)


if __name__ == "__main__":
    main()
