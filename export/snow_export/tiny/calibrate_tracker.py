"""Sets how sure a tracker must be that its object shows: `python -m snow_export.tiny.calibrate_tracker CHECKPOINT`.

The bias of its object score is moved until `--share` of the frames that show nothing of an object have a score below 0,
on clips with the settings of the held-out set and the calibration seeds, which are neither trained on nor held out. It
is by those scores alone; that a mask which is taken or left out changes what the tracker remembers is not foreseen. The
weights are changed in place.
"""

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

from ..on_demand import export
from .evaluate import run_onnx
from .heldout import make_set
from .publish import add_to
from .validate import FRAMES

BIAS = "tracker_model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias"


def scores(folders: list[Path], runs: Path) -> tuple[list[float], list[float]]:
    """Object scores on frames that show nothing of the object, and on those that show some; without the first frame."""
    hidden, shown = [], []
    for folder in tqdm(folders, desc="scores"):
        for path in sorted((folder / "gt").iterdir())[1:]:
            seen = set(np.unique(np.asarray(Image.open(path))).tolist())
            tensors = load_file(runs / folder.name / f"{path.stem}.safetensors")
            pairs = zip(tensors["object_ids"].tolist(), tensors["object_score"].flatten().tolist(), strict=True)
            for o, score in pairs:
                (shown if o in seen else hidden).append(score)
    return hidden, shown


def shift_for(hidden: list[float], share: float) -> float:
    """The most to add to scores so that at least `share` of those of hidden frames are below 0; `share` is over 0."""
    limit = sorted(hidden)[math.ceil(share * len(hidden)) - 1]
    return -math.nextafter(limit, math.inf)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="for example models/snow-tiny/checkpoint")
    parser.add_argument("--share", type=float, default=0.88, help="of hidden frames that shall have a score below 0")
    parser.add_argument("--side", type=int, default=336, help="pixels at which the tracker runs")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--work", type=Path, default=Path("out/calibrate"), help="folder for clips and runs; resumes")
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    arguments = parser.parse_args()
    if not 0 < arguments.share <= 1:
        parser.error(f"--share: expected a number over 0 and up to 1, got {arguments.share}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bundle = export(arguments.checkpoint, "tracker", arguments.side, "fp32", arguments.work / "bundles")
    folders = make_set(arguments.work / "sets", "held-out", arguments.clips, FRAMES, "calibration")
    weights = json.loads((bundle / "manifest.json").read_text())["source"]["sha256"]
    runs = arguments.work / f"{arguments.side}-{weights[:12]}"
    run_onnx(folders, runs, arguments.program, bundle)
    hidden, shown = scores(folders, runs)
    if not hidden:
        raise SystemExit(f"--clips {arguments.clips}: none hides an object; ask for more")
    shift = shift_for(hidden, arguments.share)
    add_to(arguments.checkpoint, BIAS, shift)
    hidden, shown = np.array(hidden), np.array(shown)
    figures = {
        "hidden_frames": len(hidden),
        "shown_frames": len(shown),
        "shift": shift,
        "hidden_below_0": [float(np.mean(hidden < 0)), float(np.mean(hidden + shift < 0))],
        "shown_above_0": [float(np.mean(shown > 0)), float(np.mean(shown + shift > 0))],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
