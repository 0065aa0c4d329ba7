"""Sets how sure a detector must be that something is there: `python -m snow_export.tiny.calibrate_detector CHECKPOINT`.

The bias of its presence score is lowered, or raised, until `--share` of the captions of the set that are true of
nothing find no object in pictures of the calibration seeds, which are neither trained on nor held out. The scores of
the candidates among each other stay as they are. The weights are changed in place.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .evaluate_detector import Reference, pictures
from .model import DETECTOR_SIDES
from .publish import add_to

BIAS = "detector_model.detr_decoder.presence_head.layer3.bias"
# An object is what has this score; scores are candidate times presence.
THRESHOLD = 0.5


def needed(candidate: float, presence: float) -> float:
    """How far the presence logit has to fall so that a candidate's score, 0 to 1, times it stays below the threshold;
    minus infinity if it does anyway.
    """
    if candidate <= THRESHOLD:
        return -math.inf
    most = THRESHOLD / candidate
    return presence - math.log(most / (1 - most))


@torch.inference_mode()
def shifts(checkpoint: Path, side: int, count: int) -> list[float]:
    """What every caption that is true of nothing would need, by the unpatched reference."""
    reference, found = Reference(checkpoint, side), []
    for picture in tqdm(pictures(count, "calibration"), total=count, desc=f"pictures at {side} px"):
        rows = zip(picture.captions, picture.wanted, picture.near, strict=True)
        asked = [caption for caption, wanted, near in rows if not wanted and not near]
        for inputs in reference.inputs(picture, asked):
            output = reference.model(**inputs)
            found.append(needed(float(output.pred_logits.sigmoid().max()), float(output.presence_logits)))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--share", type=float, default=0.965, help="of such captions that shall find nothing")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--sides", type=int, nargs="+", default=DETECTOR_SIDES)
    arguments = parser.parse_args()
    found = [shift for side in arguments.sides for shift in shifts(arguments.checkpoint, side, arguments.pictures)]
    if not found:
        raise SystemExit(f"--pictures {arguments.pictures}: none has a caption that is true of nothing; ask for more")
    before = float(np.mean(np.array(found) <= 0))
    shift = float(np.quantile(found, arguments.share, method="higher"))
    if not math.isfinite(shift):
        raise SystemExit(
            f"--share {arguments.share}: that many of {len(found)} captions find nothing however sure the detector is; "
            "nothing was changed, ask for a larger share"
        )
    add_to(arguments.checkpoint, BIAS, -shift)
    print(json.dumps({"captions": len(found), "without_object_before": round(before, 4), "shift": round(-shift, 4)}))


if __name__ == "__main__":
    main()
