"""Figures of a tracker on held-out clips: `python -m snow_export.tiny.evaluate`.

Two engines predict, both as folders of logits that one scorer reads: `reference` is the unpatched model of transformers
on a checkpoint, `onnx` is snow-ort on a bundle. With `--other` the masks of two runs are compared with each other.
"""

import argparse
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

from .. import reference
from .heldout import SETS, make_set

# An object is back once this share of its own pixels shows; it is found again if it is followed from there.
BACK_SHARE, FOUND_J = 0.3, 0.5


def run_reference(folders: list[Path], out: Path, checkpoint: str, side: int) -> None:
    """Writes `out/<clip>/NNNNN.safetensors` with the unpatched reference."""
    model = reference.load_reference(checkpoint, side)
    processor = reference.load_processor(side, [0.5] * 3, [0.5] * 3)
    for folder in tqdm(folders, desc=f"reference at {side} px"):
        target = out / folder.name
        if target.exists():
            continue
        partial = target.with_name(target.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        frames = reference.read_frames(folder / "frames", None)
        prompts = json.loads((folder / "prompts.json").read_text())
        for frame, ids, masks, scores in reference.roll_out(model, processor, frames, prompts, folder):
            reference.write_frame(partial, frame, ids, masks, scores)
        partial.rename(target)


def run_onnx(folders: list[Path], out: Path, program: Path, bundle: Path) -> None:
    """Writes the same with snow-ort, and its own scores in `out/<clip>.run/run.json`.

    A clip runs on one core beside others: on two cores that takes 0.85 of the time of one after another on both.
    """

    def run(folder: Path) -> None:
        prompts, gt = folder / "prompts.json", folder / "gt"
        command = [program, "run", folder / "frames", "--model", bundle, "--prompts", prompts, "--gt", gt]
        command += ["--threads", 1, "--quiet", "--overwrite"]
        command += ["--out", out / f"{folder.name}.run", "--dump-logits", out / folder.name]
        subprocess.run([str(word) for word in command], check=True)

    out.mkdir(parents=True, exist_ok=True)
    missing = [folder for folder in folders if not is_done(out / f"{folder.name}.run")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(run, folder) for folder in missing]
        try:
            for done in tqdm(as_completed(runs), total=len(runs), desc=f"snow-ort with {bundle.name}"):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def is_done(run: Path) -> bool:
    """Whether a run of snow-ort came to its end: an interrupted one has a run.json too, which says so."""
    report = run / "run.json"
    return report.exists() and json.loads(report.read_text())["status"] == "done"


def read_masks(folder: Path, frame: int, size: tuple[int, int]) -> dict[int, tuple[np.ndarray, float]]:
    """Object -> mask bool `[h, w]` at source size and object score."""
    tensors = load_file(folder / f"{frame:05d}.safetensors")
    logits = tensors["low_res_masks"].float()
    masks = F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0
    ids, scores = tensors["object_ids"].tolist(), tensors["object_score"].flatten().tolist()
    return {o: (mask, score) for o, mask, score in zip(ids, masks.numpy(), scores, strict=True)}


def region(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two bool masks; 1 if both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


@dataclass
class Figures:
    """What a set of clips says about a tracker."""

    objects: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    returns: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)

    def add(self, truth: np.ndarray, areas: np.ndarray, masks: list[np.ndarray], scores: list[float]) -> None:
        """One object: `truth` bool `[t, h, w]`, `areas` `[t]` its pixels if nothing hid it; frame 0 does not count."""
        seen = truth.reshape(len(truth), -1).sum(axis=1)
        js = [region(t, m) for t, m in zip(truth, masks, strict=True)]
        self.objects.append(float(np.mean(js[1:])))
        self.visible += [j for j, s in zip(js[1:], seen[1:], strict=True) if s]
        self.hidden += [score < 0 for score, s in zip(scores[1:], seen[1:], strict=True) if not s]
        frame = 1
        while frame < len(seen):
            if seen[frame] or not (seen[frame:] > 0).any():
                frame += 1
                continue
            while not seen[frame]:
                frame += 1
            stretch = []
            while frame < len(seen) and seen[frame]:
                if seen[frame] >= max(BACK_SHARE * areas[frame], 0.0015 * truth[0].size):
                    stretch.append(js[frame])
                frame += 1
            # One frame may be a glimpse; two are a return.
            if len(stretch) >= 2:
                self.returns.append(bool(np.mean(stretch) >= FOUND_J))

    def summary(self) -> dict[str, float | int]:
        """The figures by name."""
        objects = np.array(self.objects)
        return {
            "objects": len(objects),
            "mean_j": float(objects.mean()),
            "share_over_0.7": float((objects > 0.7).mean()),
            "mean_j_visible_frames": float(np.mean(self.visible)),
            "returns": len(self.returns),
            "found_again": float(np.mean(self.returns)) if self.returns else float("nan"),
            "hidden_frames": len(self.hidden),
            "score_below_0_when_hidden": float(np.mean(self.hidden)) if self.hidden else float("nan"),
        }


def score(folders: list[Path], out: Path) -> Figures:
    """Reads what an engine wrote."""
    figures = Figures()
    for folder in folders:
        ids = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "gt").iterdir())])
        areas = np.array(json.loads((folder / "clip.json").read_text())["areas"])
        frames = [read_masks(out / folder.name, frame, ids.shape[1:]) for frame in range(len(ids))]
        for o in frames[0]:
            figures.add(ids == o, areas[:, o], [f[o][0] for f in frames], [f[o][1] for f in frames])
    return figures


def own_scores(folders: list[Path], out: Path) -> dict[str, float]:
    """Means over objects of what `snow-ort run --gt` scored; its masks do not overlap."""
    objects = []
    for folder in folders:
        report = json.loads((out / f"{folder.name}.run" / "run.json").read_text())
        objects += [o["mean"] for o in report["scores"]["objects"] if o["tracked"] and o["mean"]]
    return {f"snow_ort_{key}": float(np.mean([o[key] for o in objects])) for key in ("j", "f", "j_and_f")}


def agreement(folders: list[Path], first: Path, second: Path) -> dict[str, float]:
    """Mean IoU between the masks of two runs, over objects and frames, at source size."""
    values = []
    for folder in folders:
        size = Image.open(next((folder / "gt").iterdir())).size[::-1]
        for frame in range(len(list((folder / "gt").iterdir()))):
            a, b = (read_masks(run / folder.name, frame, size) for run in (first, second))
            values += [region(a[o][0], b[o][0]) for o in a]
    return {"mean_iou_between": float(np.mean(values)), "worst_iou_between": float(np.min(values))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", choices=sorted(SETS), default="held-out")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--checkpoint", help="run the reference on this checkpoint")
    parser.add_argument("--side", type=int, default=224, help="pixels, for --checkpoint")
    parser.add_argument("--bundle", type=Path, help="run snow-ort on this bundle")
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--work", type=Path, default=Path("out/evaluate"), help="folder for clips and logits; resumes")
    parser.add_argument("--name", required=True, help="name of this run inside --work")
    parser.add_argument("--other", help="name of an earlier run to compare masks with")
    arguments = parser.parse_args()
    if bool(arguments.checkpoint) == bool(arguments.bundle):
        parser.error("give either --checkpoint or --bundle")
    folders = make_set(arguments.work / "sets", arguments.set, arguments.clips, arguments.frames)
    runs = arguments.work / f"{arguments.set}-{arguments.frames}"
    out = runs / arguments.name
    if arguments.checkpoint:
        run_reference(folders, out, arguments.checkpoint, arguments.side)
    else:
        run_onnx(folders, out, arguments.program, arguments.bundle)
    result = score(folders, out).summary()
    if arguments.bundle:
        result |= own_scores(folders, out)
    if arguments.other:
        result |= agreement(folders, runs / arguments.other, out)
    print(json.dumps({key: round(value, 4) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
