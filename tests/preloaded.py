"""Runs Python modules in processes of their own that need not load PyTorch and transformers.

Loading them takes seconds, more than most of what these processes then do. So they are forked from one that has
imported these libraries and nothing else: none of them sees a module of another, or one of this project that it did not
import itself.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

LIBRARIES = [
    "torch",
    "torch.export",
    "onnxscript",
    "transformers.models.sam3.image_processing_sam3",
    "transformers.models.sam3_tracker_video.modeling_sam3_tracker_video",
    "transformers.models.sam3_tracker_video.processing_sam3_tracker_video",
    "transformers.models.sam3_video.modeling_sam3_video",
    "transformers.models.sam3_video.processing_sam3_video",
]


def run_module(module: str, *words: object) -> None:
    """`python -m module words…`; fails with what the module printed if it does not end well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [module, *(str(word) for word in words)]
        process = context.Process(target=_run, args=(command, log))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.exitcode}\n{log.read_text()}")


def _run(command: list[str], log: Path) -> None:
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
