"""Sets of clips that no training has seen, as folders that any tracker can run on.

A clip's folder holds `frames/NNNNN.png`, the ground truth `gt/NNNNN.png` (palette index = object), `prompts.json` for
`snow-ort run --prompts` (a box on frame 0 for every object that is fair to ask for) and `clip.json` with the visible
and the whole area of every object on every frame.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .clips import SEEDS, Clip, Settings, make_clip
from .photo_clips import PhotoSettings, make_photo_clip
from .photo_pack import load_pack

# Rendered larger than any resolution of the model, so that every resolution sees the same pictures.
SOURCE_SIDE = 448

SETS = {
    "held-out": Settings(side=SOURCE_SIDE, frames=24),
    # Another world: faster, smaller, more of everything, noisier.
    "hard": Settings(
        side=SOURCE_SIDE,
        frames=24,
        objects=(4, 8),
        radius=(0.05, 0.18),
        speed=0.025,
        lookalikes=0.7,
        meeting=1.0,
        crossing=0.6,
        noise=20.0,
    ),
    # Made of photographs that training does not see.
    "photographs": PhotoSettings(side=SOURCE_SIDE, frames=24),
}

# Of an object's own pixels, and of the frame's: what must be seen on frame 0 for a fair prompt.
FAIR_SHARE, FAIR_AREA = 0.6, 0.003


def fair_objects(clip: Clip, frame: int = 0) -> list[int]:
    """Objects that a user could point at on a frame."""
    seen = clip.seen()[frame]
    enough = FAIR_AREA * clip.ids[frame].size
    return [o for o in range(1, len(seen)) if seen[o] >= enough and seen[o] >= FAIR_SHARE * clip.areas[frame, o]]


def box_of(inside: np.ndarray) -> list[int]:
    """`[left, top, right, bottom]` in pixels around bool `[h, w]`; right and bottom are exclusive."""
    rows, columns = np.nonzero(inside)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


PALETTE = np.array([[(i * 67) % 256, (i * 131 + 60) % 256, (i * 197 + 120) % 256] for i in range(256)], np.uint8)
PALETTE[0] = 0


def write_mask(path: Path, ids: np.ndarray) -> None:
    """Writes u8 `[h, w]` as an index PNG."""
    mask = Image.fromarray(ids)
    mask.putpalette(PALETTE.tobytes())
    mask.save(path)


def write_clip(folder: Path, clip: Clip) -> None:
    """Writes a clip's folder, under its final name only when it is whole."""
    unfinished = folder.with_name(folder.name + ".partial")
    for name in ("frames", "gt"):
        (unfinished / name).mkdir(parents=True, exist_ok=True)
    for index, (frame, ids) in enumerate(zip(clip.frames, clip.ids, strict=True)):
        Image.fromarray(frame).save(unfinished / "frames" / f"{index:05d}.png", compress_level=1)
        write_mask(unfinished / "gt" / f"{index:05d}.png", ids)
    prompts = [{"frame": 0, "object": o, "box": box_of(clip.ids[0] == o)} for o in fair_objects(clip)]
    (unfinished / "prompts.json").write_text(json.dumps(prompts))
    areas = {"seen": clip.seen().tolist(), "areas": clip.areas.tolist()}
    (unfinished / "clip.json").write_text(json.dumps(areas))
    unfinished.rename(folder)


def make_set(root: Path, name: str, clips: int, frames: int, seeds: str = "held-out") -> list[Path]:
    """The first `clips` clips of a set that have an object to ask for, made where they are missing; `seeds` is a key of
    `SEEDS`.
    """
    settings = replace(SETS[name], frames=frames)
    make = partial(make_clip, settings=settings)
    if isinstance(settings, PhotoSettings):
        # Cutting needs libraries that nothing else here does.
        from .make_photo_pack import pack_at

        make = partial(make_photo_clip, pack=load_pack(pack_at(), held_out=True), settings=settings)
    folders: list[Path] = []
    for seed in range(SEEDS[seeds][0], SEEDS[seeds][1] + 1):
        if len(folders) == clips:
            return folders
        folder = root / f"{name}-{frames}" / str(seed)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            clip = make(seed)
            if not fair_objects(clip):
                continue
            write_clip(folder, clip)
        folders.append(folder)
    raise ValueError(f"the {seeds} seeds give fewer than {clips} clips; ask for fewer")
