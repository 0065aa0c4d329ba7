"""Checkpoints and bundles that a measurement needs, made in processes of their own where they are missing."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from .checkpoint import Checkpoint
from .errors import ExportError


def export(checkpoint: Path, name: str, res: int, precision: str, out: Path) -> Path:
    """A bundle for timing, without golden vectors; exported if it is missing, or is of other weights."""
    folder = out / f"{name}-{res}-{precision}"
    if not folder.exists() or _weights_of(folder) != Checkpoint(str(checkpoint), checkpoint, {}).sha256():
        command = [sys.executable, "-W", "ignore", "-m", "snow_export.cli", str(checkpoint), "--res", str(res)]
        command += ["--precision", precision, "--name", name, "--golden-frames", "0", "--out", str(out)]
        run([*command, "--overwrite"])
    return folder


def _weights_of(folder: Path) -> str:
    """The hash of the checkpoint that a bundle was made of."""
    return json.loads((folder / "manifest.json").read_text())["source"]["sha256"]


def run(command: list[str]) -> None:
    """Runs a step; its own words say what went wrong."""
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ExportError(f"ended with exit code {code}: {shlex.join(command)}")


def random_checkpoint(out: Path) -> Path:
    """The architecture in full size with random weights; made if it is missing."""
    folder = out / "random-full"
    if not folder.exists():
        command = [sys.executable, "-W", "ignore", "-m", "snow_export.random_checkpoint"]
        run([*command, "--size", "full", "--seed", "7", "--out", str(folder)])
    return folder
