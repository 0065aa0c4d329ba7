"""Command line: `snow-export CHECKPOINT --res 1008,672 --precision fp16 --out models/`."""

import argparse
import os
import sys
import time
from pathlib import Path

from . import __version__
from .errors import ExportError


def _resolutions(text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sides in pixels, such as 1008,672") from None
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sides in pixels, such as 1008,672")
    return list(dict.fromkeys(values))


def _parts(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if "tracker" not in parts or set(parts) - {"tracker", "detector"}:
        raise argparse.ArgumentTypeError(f"{text!r}: expected tracker, or tracker,detector")
    return list(dict.fromkeys(parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snow-export",
        description="Exports SAM3's video tracker to ONNX bundles for snow-ort, one per resolution.",
        epilog="Exit codes: 0 done, 2 could not do it.",
    )
    parser.add_argument("checkpoint", help="Hugging Face id (facebook/sam3) or a folder in transformers format")
    parser.add_argument("--res", type=_resolutions, default=[1008], help="sides in pixels, e.g. 1008,672,504")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8"],
        default="fp32",
        help="weights and activations; int8: the linear layers, for processors (default fp32)",
    )
    parser.add_argument(
        "--parts",
        type=_parts,
        default=["tracker"],
        help="tracker, or tracker,detector: with what finds objects from text (default tracker)",
    )
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder that gets the bundles")
    parser.add_argument("--name", help="first part of the bundles' names; default: the checkpoint's name")
    parser.add_argument(
        "--golden-frames",
        type=int,
        default=4,
        metavar="N",
        help="frames that the reference computes for the golden vectors and the check (0: neither; default 4)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace bundles that exist")
    parser.add_argument("--version", action="version", version=f"snow-export {__version__}")
    return parser


class _Progress:
    """One line a step with the time since the start, on stderr; steps of an export take seconds to minutes."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> None:
    """Exports every bundle asked for; checks all of them before the first long step."""
    if arguments.golden_frames < 0 or arguments.golden_frames == 1:
        raise ExportError("--golden-frames: expected 0, or 2 and more (a tracked frame needs one before it)")
    # The libraries take seconds to load: not before the arguments are known to be fine.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1" if not sys.stderr.isatty() else "0")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    from .bundle import check_detector, check_resolution, export_bundle
    from .checkpoint import find_checkpoint
    from .families import family_of
    from .precision import PRECISIONS

    logging.disable_progress_bar()
    checkpoint = find_checkpoint(arguments.checkpoint)
    family = family_of(checkpoint.model_type, arguments.checkpoint)
    config = checkpoint.config()
    if "detector" in arguments.parts:
        check_detector(checkpoint, config)
    for resolution in arguments.res:
        check_resolution(resolution, *family.patch_and_window(config))
    name = arguments.name or Path(arguments.checkpoint).resolve().name
    if not name or "/" in name or name.startswith("."):
        raise ExportError(f"--name {name!r}: expected a plain folder name")
    say = _Progress()
    for resolution in arguments.res:
        say(f"{name} at {resolution} px, {arguments.precision}")
        target = export_bundle(
            checkpoint,
            resolution,
            PRECISIONS[arguments.precision],
            arguments.out,
            name,
            arguments.golden_frames,
            "detector" in arguments.parts,
            arguments.overwrite,
            say,
        )
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        print(f"{target} ({size / 2**20:.1f} MiB)")


def main() -> None:
    """Entry point; exit codes 0 and 2."""
    try:
        run(_parser().parse_args())
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted; nothing was kept of the bundle at work", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
