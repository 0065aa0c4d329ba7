"""Compares two folders of dumped logits, frame by frame and object by object."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .errors import ExportError


@dataclass
class Comparison:
    """Distances of a run from the reference. Lists run over frames."""

    frames: list[int]
    relative_l2: list[float]
    score_difference: list[float]
    iou: list[float]
    positive: list[float]
    lost: int

    @property
    def mean_iou(self) -> float:
        """Mean over frames and objects."""
        return float(np.mean(self.iou))

    def passes(self) -> bool:
        """The tolerance of float32 on CPU: rounding on the first tracked frame, and what the loop makes of it."""
        return self.relative_l2[1] <= 1e-3 and max(self.relative_l2) <= 1e-2 and self.mean_iou >= 0.99

    def summary(self) -> str:
        """One line for a log."""
        return (
            f"{len(self.frames)} frames, relative L2 first tracked {self.relative_l2[1]:.1e}, "
            f"last {self.relative_l2[-1]:.1e}, worst {max(self.relative_l2):.1e}, mean IoU {self.mean_iou:.4f}, "
            f"score off by at most {max(self.score_difference):.1e}, "
            f"{np.mean(self.positive):.0%} of pixels positive, {self.lost} masks of absent objects"
        )


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 if both are empty."""
    union = np.logical_or(first, second).sum()
    return 1.0 if union == 0 else float(np.logical_and(first, second).sum() / union)


def compare(got: Path, expected: Path) -> Comparison:
    """Compares `got` with `expected`; raises `ExportError` unless frames, objects and shapes agree exactly."""
    names = sorted(path.name for path in expected.glob("*.safetensors"))
    if not names or names != sorted(path.name for path in got.glob("*.safetensors")):
        raise ExportError(f"{got} has not the frames of {expected}, which has {len(names)}")
    result = Comparison([], [], [], [], [], 0)
    for name in names:
        reference, run = load_file(expected / name), load_file(got / name)
        ids = reference["object_ids"].tolist()
        masks, wanted = run["low_res_masks"], reference["low_res_masks"]
        if run["object_ids"].tolist() != ids or masks.shape != wanted.shape:
            found = f"objects {run['object_ids'].tolist()} with masks {masks.shape}"
            raise ExportError(f"{got / name}: {found}, expected {ids} with {wanted.shape}")
        distances = [
            float(np.linalg.norm(a.astype(np.float64) - b) / max(np.linalg.norm(b.astype(np.float64)), 1e-12))
            for a, b in zip(masks, wanted, strict=True)
        ]
        result.frames.append(int(Path(name).stem))
        result.relative_l2.append(max(distances))
        result.score_difference.append(float(np.abs(run["object_score"] - reference["object_score"]).max()))
        result.iou.append(float(np.mean([iou(a > 0, b > 0) for a, b in zip(masks, wanted, strict=True)])))
        result.positive.append(float((wanted > 0).mean()))
        result.lost += int((reference["object_score"] <= 0).sum())
    return result


def objects_differ(folder: Path) -> float:
    """The largest relative L2 distance between the logits of two objects of a frame, over all frames."""
    largest = 0.0
    for path in sorted(folder.glob("*.safetensors")):
        masks = load_file(path)["low_res_masks"].astype(np.float64)
        for other in masks[1:]:
            largest = max(
                largest,
                float(np.linalg.norm(other - masks[0]) / np.linalg.norm(masks[0])),
            )
    return largest
