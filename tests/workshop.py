"""What tests of several folders use: the real clip, the program, small checkpoints, their bundles, reference runs.

Everything that a `Workshop` makes lands in one folder and is made once, whoever asks: in the one that `SNOW_TEST_CACHE`
names, which processes may share and later ones find again, else in a temporary one.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preloaded import run_module

ROOT = Path(__file__).resolve().parents[1]
BEAR = ROOT.parent / "shared" / "data" / "bear"
# Where the built programs are.
TARGET = Path(os.environ.get("SNOW_TARGET", ROOT / "target" / "release"))


def program(name: str) -> Path:
    """A built program; the tests never build."""
    path = TARGET / name
    if not path.exists():
        pytest.fail(f"{path} is missing; build it with `cargo build --release --bins --examples`")
    return path


def synthetic_clip(folder: Path, frames: int, width: int = 214, height: int = 120) -> None:
    """Textured shapes that move, as PNGs; used where the real clip is not at hand and for other sizes."""
    random = np.random.default_rng(11)
    folder.mkdir(parents=True)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = 120 + 50 * np.sin(x / 9)[..., None] * np.cos(y / 6)[..., None] + random.normal(0, 15, (height, width, 3))
    colours = random.uniform(10, 245, (4, 3))
    for frame in range(frames):
        image = ground.copy()
        for index, (cx, cy, radius, dx, dy) in enumerate(
            [
                (40, 40, 20, 4, 1),
                (120, 60, 28, -2, 1),
                (170, 80, 18, -3, -2),
                (80, 90, 14, 2, -2),
            ]
        ):
            inside = (x - cx - dx * frame) ** 2 + (y - cy - dy * frame) ** 2 < radius**2
            image[inside] = (colours[index] + 30 * np.sin((x - dx * frame) / 3)[..., None])[inside]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{frame:05d}.png")


@dataclass
class Workshop:
    """Makes checkpoints, bundles, clips and reference runs on demand, each once."""

    folder: Path

    @classmethod
    def of_session(cls, tmp_path_factory: pytest.TempPathFactory) -> "Workshop":
        """Those in the folder that the environment names, else in a temporary one."""
        cache = os.environ.get("SNOW_TEST_CACHE")
        folder = Path(cache) if cache else tmp_path_factory.mktemp("cache")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def once(self, path: Path, make: Callable[[], object]) -> Path:
        """The path, made unless it is there, by the process that asks first; others wait for it meanwhile."""
        with (self.folder / f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                make()
        return path

    def checkpoint(self, seed: int, size: int = 112, score_bias: float = 8.0) -> Path:
        """A small random checkpoint."""
        from snow_export.random_checkpoint import save_checkpoint, small_config

        path = self.folder / f"checkpoint-{seed}-{size}-{score_bias}"
        return self.once(path, lambda: save_checkpoint(path, small_config(size), seed, score_bias=score_bias))

    def video_checkpoint(self, seed: int, size: int = 112) -> Path:
        """A small random checkpoint of detector and tracker."""
        from snow_export.random_checkpoint import save_checkpoint, small_video_config

        path = self.folder / f"video-checkpoint-{seed}-{size}"
        return self.once(path, lambda: save_checkpoint(path, small_video_config(size), seed))

    def bundle(self, checkpoint: Path, resolution: int, precision: str = "fp32", parts: str = "tracker") -> Path:
        """The exported bundle of a checkpoint."""
        models = self.folder / "models"
        path = models / f"{checkpoint.name}-{resolution}-{precision}"
        words = ["--res", resolution, "--precision", precision, "--out", models, "--golden-frames", 0, "--parts", parts]
        return self.once(path, lambda: run_module("snow_export.cli", checkpoint, *words))

    def clip(self, frames: int) -> Path:
        """The first frames of the real clip as a folder of links."""
        if not BEAR.is_dir():
            pytest.skip(f"the real clip is missing ({BEAR})")
        path = self.folder / f"bear-{frames}"

        def link() -> None:
            path.mkdir()
            for image in sorted((BEAR / "frames").iterdir())[:frames]:
                (path / image.name).symlink_to(image)

        return self.once(path, link)

    def synthetic(self, frames: int) -> Path:
        """A clip that needs no data."""
        path = self.folder / f"synthetic-{frames}"
        return self.once(path, lambda: synthetic_clip(path, frames))

    def prompts(self, name: str, entries: list[dict]) -> Path:
        """A prompts file."""
        path = self.folder / f"prompts-{name}.json"
        path.write_text(json.dumps(entries))
        return path

    def reference(self, checkpoint: Path, clip: Path, prompts: Path, resolution: int) -> Path:
        """Logits of the unpatched reference, computed in a process of its own."""
        path = self.folder / "reference" / f"{checkpoint.name}-{clip.name}-{prompts.stem}-{resolution}"
        words = ["--frames", clip, "--prompts", prompts, "--res", resolution, "--out", path]
        return self.once(path, lambda: run_module("snow_export.reference", checkpoint, *words))

    def run(self, bundle: Path, clip: Path, prompts: Path, name: str, *options: str) -> Path:
        """Logits of `snow-ort run`."""
        out = self.folder / "runs" / name
        command = [
            program("snow-ort"),
            "run",
            clip,
            "--model",
            bundle,
            "--prompts",
            prompts,
            "--out",
            out / "out",
        ]
        command += ["--dump-logits", out / "logits", "--overwrite", "--quiet", *options]
        run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return out / "logits"

    def tampered(self, bundle: Path, clip: Path, prompts: Path, how: str) -> Path:
        """Logits of the tracker with one of its inputs falsified (`tests/tools/tampered.rs`)."""
        out = self.folder / "tampered" / f"{bundle.name}-{prompts.stem}-{how}"
        command = [program("examples/tampered"), bundle, clip, prompts, out, how]
        run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return out
