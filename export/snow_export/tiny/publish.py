"""Puts a trained checkpoint beside its model card, in half precision: `python -m snow_export.tiny.publish FROM TO`."""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def publish(source: Path, target: Path) -> None:
    """Copies `config.json` and the weights; what else is in `target` stays."""
    target.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in load_file(source / "model.safetensors").items()}
    partial = target / "model.safetensors.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    shutil.copyfile(source / "config.json", target / "config.json")
    partial.rename(target / "model.safetensors")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="checkpoint/ of a training run")
    parser.add_argument("target", type=Path, help="for example models/snow-tiny/checkpoint")
    arguments = parser.parse_args()
    publish(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
