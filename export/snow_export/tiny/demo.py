"""Makes the demonstration clips: `python -m snow_export.tiny.demo --out demo`.

Clips of seeds that training and held-out clips never use, as H.264, with the ground truth of every frame
(`gt/NNNNN.png`, palette index = object). The first comes with a box for each object on the first frame
(`prompts.json`); the second, in `text/`, with captions and the objects that each means (`captions.json`).
"""

import argparse
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ExportError
from .captioned import captioned
from .captions import Caption
from .clips import SEEDS, Clip, Settings, make_clip
from .heldout import box_of, fair_objects, write_mask

SETTINGS = Settings(
    side=336,
    frames=72,
    objects=(3, 4),
    radius=(0.09, 0.2),
    speed=0.006,
    lookalikes=0.3,
    meeting=1.0,
    noise=5.0,
    jpeg=0.0,
)
# A clip with all that is worth showing: one object passes in front of another and leaves, one is hidden for a while.
SEED = 116
RATE = 24

# Several of a kind, one hidden behind others for a while, and things that nobody asks for.
TEXT_SEED = 151
CAPTIONS = (
    Caption("blue star", "star", "blue"),
    Caption("ring", "ring"),
    Caption("red box", "box", "red"),
)


def encode(frames: np.ndarray, path: Path) -> None:
    """Writes u8 `[t, h, w, 3]` as H.264 in BT.709; the same FFmpeg writes the same file again."""
    height, width = frames.shape[1:3]
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(RATE), "-i", "-", "-vf", "scale=out_color_matrix=bt709:out_range=tv"]
    command += ["-c:v", "libx264", "-preset", "slow", "-crf", "23", "-threads", "1", "-pix_fmt", "yuv420p"]
    command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    command += ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", str(path)]
    try:
        subprocess.run(command, input=frames.tobytes(), check=True)
    except FileNotFoundError:
        raise ExportError("the ffmpeg command is missing; `scripts/setup test` installs it") from None
    except subprocess.CalledProcessError as error:
        raise ExportError(f"ffmpeg could not write {path} (exit code {error.returncode})") from None


def captioned_settings(seed: int) -> Settings:
    """Settings of the clip with captions."""
    return replace(
        captioned(np.random.default_rng((seed, 6)), SETTINGS.side, 60),
        photographed=0.0,
        objects=(4, 6),
        radius=(0.09, 0.2),
        crossing=0.5,
        leaving=0.3,
        speed=0.007,
        noise=4.0,
        jpeg=0.0,
    )


def write_clip_and_truth(folder: Path, clip: Clip, objects: list[int]) -> None:
    """Replaces `clip.mp4` and `gt/` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / "gt.partial"
    truth.mkdir(exist_ok=True)
    for frame, ids in enumerate(clip.ids):
        # Nobody asks for the others, and a score of them would be of empty masks.
        write_mask(truth / f"{frame:05d}.png", np.where(np.isin(ids, objects), ids, 0).astype(np.uint8))
    encode(clip.frames, folder / "clip.partial.mp4")
    shutil.rmtree(folder / "gt", ignore_errors=True)
    truth.rename(folder / "gt")
    (folder / "clip.partial.mp4").rename(folder / "clip.mp4")


def write_demo(folder: Path, clip: Clip) -> None:
    """The clip with boxes."""
    objects = fair_objects(clip)
    write_clip_and_truth(folder, clip, objects)
    prompts = [{"frame": 0, "object": o, "box": box_of(clip.ids[0] == o)} for o in objects]
    lines = ",\n ".join(json.dumps(prompt) for prompt in prompts)
    (folder / "prompts.json").write_text(f"[\n {lines}\n]\n")


def write_text_demo(folder: Path, clip: Clip) -> None:
    """The clip with captions."""
    looks = clip.looks or []
    meant = {c.text: [o + 1 for o in range(len(looks)) if c.matches(looks[o])] for c in CAPTIONS}
    write_clip_and_truth(folder, clip, sorted({o for objects in meant.values() for o in objects}))
    (folder / "captions.json").write_text(json.dumps(meant, indent=1) + "\n")


def main() -> None:
    """Command line."""
    first, last = SEEDS["demo"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--seed", type=int, default=SEED, help=f"{first} to {last}")
    arguments = parser.parse_args()
    if not first <= arguments.seed <= last:
        parser.error(f"--seed {arguments.seed}: demonstration clips have seeds from {first} to {last}")
    clip = make_clip(arguments.seed, SETTINGS)
    write_demo(arguments.out, clip)
    text_clip = make_clip(TEXT_SEED, captioned_settings(TEXT_SEED))
    write_text_demo(arguments.out / "text", text_clip)
    for folder, made in ((arguments.out, clip), (arguments.out / "text", text_clip)):
        print(f"{folder}: {len(made.frames)} frames, {(folder / 'clip.mp4').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
