"""Runs snow-export and says how it ended. (Not in conftest.py: other tests have a module of that name.)"""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
# A grid of 4 that windows of 2 tile: as little work as the model allows.
RESOLUTION, WINDOW = 56, 2


@dataclass
class Run:
    """How the command ended."""

    code: int
    stdout: str
    stderr: str

    def refused(self, *words: str) -> None:
        """Exit code 2, one error line, and each of the words in it."""
        assert self.code == 2, self.stderr
        assert "Traceback" not in self.stderr
        lines = [line for line in self.stderr.splitlines() if "error: " in line]
        assert len(lines) == 1, self.stderr
        for word in words:
            assert word in lines[0], f"{word!r} is not in: {lines[0]}"


def snow_export(*arguments) -> Run:
    """Runs the command inside this process: the libraries take seconds to load."""
    from snow_export.cli import main

    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["snow-export", *map(str, arguments)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return Run(code, stdout.getvalue(), stderr.getvalue())


def snow_export_process(*arguments, **environment) -> Run:
    """Runs the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "snow_export.cli", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return Run(run.returncode, run.stdout, run.stderr)


def left_over(out: Path) -> list[str]:
    """Whatever an export left behind, hidden or not."""
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) if out.exists() else []


def write_weights(folder: Path) -> None:
    """A weight file that is valid and holds nothing of use."""
    save_file({"unused": np.zeros(1, np.float32)}, folder / "model.safetensors")
