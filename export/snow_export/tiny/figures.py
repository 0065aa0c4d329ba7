"""Measures a trained model and writes the tables of its model card: `python -m snow_export.tiny.figures`.

Everything that is asked of snow-tiny, in one go: held-out clips at each resolution and precision, half against single
precision, snow-ort against the unpatched reference, the harder set, clips made of photographs, and a real clip where
one is given. What was measured is kept in `--work`, so that an interrupted run goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import ExportError
from ..on_demand import export
from ..outputs import replace_between
from .evaluate import agreement, own_scores, run_onnx, run_reference, score
from .heldout import make_set
from .model import SIDES

# Side of the published bundle, which is fp16.
PUBLISHED = 336
# The harder set has more objects a clip; the largest side is left out for time.
HARD_SIDES = SIDES[:-1]
BEGIN, END = "<!-- figures: written by snow_export.tiny.figures -->", "<!-- end of figures -->"


@dataclass
class Measuring:
    """What all measurements share."""

    model: Path
    work: Path
    program: Path
    clips: int
    frames: int
    # Clips that the reference runs too, which takes it several times as long.
    reference_clips: int

    def folders(self, name: str, clips: int | None = None) -> list[Path]:
        """The clips of a set, or its first ones."""
        return make_set(self.work / "sets", name, self.clips if clips is None else clips, self.frames)

    def runs(self, name: str) -> Path:
        """Where the runs on a set are."""
        return self.work / f"{name}-{self.frames}"

    def bundle(self, side: int, precision: str) -> Path:
        """A bundle of the model's checkpoint, exported if it is missing."""
        return export(self.model / "checkpoint", self.model.name, side, precision, self.work / "bundles")

    def tracked(self, name: str, side: int, precision: str) -> dict:
        """Figures of snow-ort on a set."""
        folders, out = self.folders(name), self.runs(name) / f"{side}-{precision}"
        run_onnx(folders, out, self.program, self.bundle(side, precision))
        return score(folders, out).summary() | own_scores(folders, out)

    def against(self, first: str, second: str, clips: int | None = None) -> dict:
        """How far two runs on the held-out set agree."""
        runs = self.runs("held-out")
        return agreement(self.folders("held-out", clips), runs / first, runs / second)

    def real(self, clip: Path, box: str, side: int) -> dict:
        """Scores of one object of a real clip with `frames/` and `masks/`."""
        out = self.work / "real" / str(side)
        command = [self.program, "run", clip / "frames", "--model", self.bundle(side, "fp32"), "--box", box]
        command += ["--gt", clip / "masks", "--out", out, "--overwrite", "--quiet"]
        subprocess.run([str(word) for word in command], check=True)
        return json.loads((out / "run.json").read_text())["scores"]["overall"]


def percent(value: float) -> str:
    """A share for a table."""
    return f"{100 * value:.0f}%"


def held_out_table(columns: dict[str, dict]) -> list[str]:
    """Rows of the figures that are asked for, one column a run."""
    first = next(iter(columns.values()))
    rows = {
        "mean J": lambda f: f"{f['mean_j']:.3f}",
        "objects with J over 0.7": lambda f: percent(f["share_over_0.7"]),
        f"found again after they were hidden ({first['returns']} returns)": lambda f: percent(f["found_again"]),
        f"object score below 0 while hidden ({first['hidden_frames']} frames)": lambda f: percent(
            f["score_below_0_when_hidden"]
        ),
        "J, F, J&F of `snow-ort run --gt`": lambda f: (
            f"{f['snow_ort_j']:.3f}, {f['snow_ort_f']:.3f}, {f['snow_ort_j_and_f']:.3f}"
        ),
    }
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    return lines + [
        f"| {name} | " + " | ".join(show(f) for f in columns.values()) + " |" for name, show in rows.items()
    ]


def measure(measuring: Measuring, real: tuple[Path, str] | None) -> tuple[dict, list[str]]:
    """All figures by name, and the text for the card."""
    variants = [(side, "fp32") for side in SIDES] + [(PUBLISHED, "fp16")]
    figures: dict[str, dict] = {}
    for side, precision in variants:
        figures[f"held-out-{side}-{precision}"] = measuring.tracked("held-out", side, precision)
    for side in HARD_SIDES:
        figures[f"hard-{side}-fp32"] = measuring.tracked("hard", side, "fp32")
    figures[f"photographs-{PUBLISHED}-fp16"] = measuring.tracked("photographs", PUBLISHED, "fp16")
    for side in SIDES:
        run_reference(
            measuring.folders("held-out", measuring.reference_clips),
            measuring.runs("held-out") / f"{side}-reference",
            str(measuring.model / "checkpoint"),
            side,
        )
        figures[f"onnx-against-pytorch-{side}"] = measuring.against(
            f"{side}-fp32", f"{side}-reference", measuring.reference_clips
        )
    figures["fp16-against-fp32"] = measuring.against(f"{PUBLISHED}-fp32", f"{PUBLISHED}-fp16")
    if real:
        for side in SIDES:
            figures[f"{real[0].name}-{side}-fp32"] = measuring.real(*real, side)

    def columns(name: str) -> dict[str, dict]:
        return {
            f"{side} px, {precision}": figures[f"{name}-{side}-{precision}"]
            for side, precision in variants
            if f"{name}-{side}-{precision}" in figures
        }

    objects = {name: figures[f"{name}-{SIDES[0]}-fp32"]["objects"] for name in ("held-out", "hard")}
    size = f"{measuring.clips} clips of {measuring.frames} frames"
    lines = [f"Held-out clips: {size}, {objects['held-out']} objects, a box on frame 0, snow-ort on the processor", ""]
    lines += held_out_table(columns("held-out"))
    lines += ["", f"The harder set: {size}, {objects['hard']} objects", ""]
    lines += held_out_table(columns("hard"))
    objects["photographs"] = figures[f"photographs-{PUBLISHED}-fp16"]["objects"]
    lines += ["", f"Clips made of photographs that no training sees: {size}, {objects['photographs']} objects", ""]
    lines += held_out_table(columns("photographs"))
    title = f"mask against mask (PyTorch: {measuring.reference_clips} clips)"
    lines += ["", f"| held-out clips, {title} | mean IoU | worst IoU |", "| --- | --- | --- |"]
    pairs = {f"snow-ort against PyTorch, {side} px, fp32": f"onnx-against-pytorch-{side}" for side in SIDES}
    pairs[f"fp16 against fp32, {PUBLISHED} px"] = "fp16-against-fp32"
    for title, name in pairs.items():
        found = figures[name]
        lines.append(f"| {title} | {found['mean_iou_between']:.4f} | {found['worst_iou_between']:.3f} |")
    if real:
        lines += ["", f"| the real clip `{real[0].name}` | J | F | J&F |", "| --- | --- | --- | --- |"]
        for side in SIDES:
            found = figures[f"{real[0].name}-{side}-fp32"]
            lines.append(f"| {side} px, fp32 | {found['j']:.3f} | {found['f']:.3f} | {found['j_and_f']:.3f} |")
    return figures, lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/snow-tiny"), help="has checkpoint/ and README.md")
    parser.add_argument("--work", type=Path, default=Path("out/figures"))
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--reference-clips", type=int, default=8, help="clips that PyTorch runs too")
    parser.add_argument("--real", type=Path, help="folder with frames/ and masks/ of a real clip")
    parser.add_argument("--box", help="x1,y1,x2,y2: the prompt on its first frame")
    arguments = parser.parse_args()
    if arguments.reference_clips < 1:
        parser.error(f"--reference-clips: expected 1 or more, got {arguments.reference_clips}")
    if bool(arguments.real) != bool(arguments.box):
        parser.error("--real and --box go together")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    measuring = Measuring(
        model=arguments.model,
        work=arguments.work,
        program=arguments.program,
        clips=arguments.clips,
        frames=arguments.frames,
        reference_clips=min(arguments.reference_clips, arguments.clips),
    )
    real = (arguments.real, arguments.box) if arguments.real else None
    figures, lines = measure(measuring, real)
    print("\n".join(lines))
    (arguments.work / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    replace_between(arguments.model / "README.md", BEGIN, END, lines)


if __name__ == "__main__":
    try:
        main()
    except ExportError as error:
        sys.exit(f"error: {error}")
