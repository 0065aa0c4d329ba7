"""Writing a bundle: graphs, golden vectors, manifest. A bundle appears whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from . import __version__
from .checkpoint import Checkpoint, file_sha256
from .errors import ExportError
from .families import family_of, sam3_detector
from .onnx_writer import OPSET, GraphSpec, read_signature, write_graph
from .precision import Precision
from .quantize import linear_weights, quantize_linear
from .verify import ROUNDED_DOUBTFUL, verify_stages

SCHEMA_VERSION = 1
TOKENIZER = "tokenizer.json"


def check_resolution(resolution: int, patch: int, window: int) -> None:
    """Raises `ExportError` for a side that is no multiple of the patch, naming the nearest that are."""
    if resolution >= patch and resolution % patch == 0:
        return
    below, above = resolution // patch * patch, (resolution // patch + 1) * patch
    nearest = f"{below} and {above}" if below else f"{above}"
    tile = patch * window
    exact = ", ".join(str(tile * i) for i in (1, 2))
    raise ExportError(
        f"--res {resolution}: not a multiple of the patch of {patch} px; the nearest are {nearest}. "
        f"{exact} and {tile * 3} tile the attention windows exactly and cost least for their size."
    )


def export_bundle(
    checkpoint: Checkpoint,
    resolution: int,
    precision: Precision,
    out: Path,
    name: str,
    golden_frames: int,
    detector: bool,
    overwrite: bool,
    say: Callable[[str], None],
) -> Path:
    """Exports one bundle to `out/<name>-<resolution>-<precision>` and returns that folder.

    `golden_frames` frames are computed by the reference (0: no golden vectors and no check). With `detector` the bundle
    also finds objects from text. Nothing is left under the final name unless everything succeeded.
    """
    family = family_of(checkpoint.model_type, checkpoint.source)
    target = out / f"{name}-{resolution}-{precision.name}"
    if target.exists() and not overwrite:
        raise ExportError(f"{target}: exists already; use --overwrite, another --name or another --out")
    staging = out / f".{target.name}.partial-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    try:
        _fill(staging, checkpoint, family, resolution, precision, name, golden_frames, detector, say)
        if target.exists():
            old = out / f".{target.name}.old-{os.getpid()}"
            target.rename(old)
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    except OSError as error:
        raise ExportError(f"{error.filename or out}: {error.strerror or error}; nothing was kept") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def check_detector(checkpoint: Checkpoint, config) -> None:
    """Raises `ExportError` for a checkpoint without a detector, or without what it needs."""
    if checkpoint.model_type not in sam3_detector.MODEL_TYPES:
        raise ExportError(
            f"{checkpoint.source}: has no detector (model_type {checkpoint.model_type!r}, expected "
            f"{' or '.join(sam3_detector.MODEL_TYPES)}); export with --parts tracker"
        )
    sam3_detector.check_supported(config)
    if not (checkpoint.folder / TOKENIZER).exists():
        raise ExportError(f"{checkpoint.folder}: has no {TOKENIZER}, which the detector needs to read text")


def _fill(staging, checkpoint, family, resolution, precision, name, golden_frames, detector, say) -> None:
    config = checkpoint.config()
    family.check_supported(config)
    check_resolution(resolution, *family.patch_and_window(config))
    config.image_size = resolution
    preprocess = checkpoint.preprocess()
    say("loading the checkpoint")
    model = family.load_model(str(checkpoint.folder), config)
    if golden_frames:
        # After loading: a checkpoint with missing tensors is refused in seconds.
        _run_golden(staging, checkpoint, resolution, preprocess, golden_frames, say)
    masks = family.manifest_masks(model)
    memory = family.manifest_memory(model, precision)
    graphs = _write_graphs(family.graphs(model, preprocess, precision, detector), staging, precision, say)
    del model
    found = {}
    if detector:
        say("loading the detector")
        model = sam3_detector.load_model(str(checkpoint.folder), config)
        if golden_frames:
            _run_golden_detector(staging, checkpoint, resolution, preprocess, say)
        graphs += _write_graphs(sam3_detector.graphs(model, config, precision), staging, precision, say)
        del model
        shutil.copyfile(checkpoint.folder / TOKENIZER, staging / TOKENIZER)
        tokenizer = _file(staging, staging / TOKENIZER)
        found = {"detector": {"tokenizer": tokenizer, **sam3_detector.manifest_detector(config)}}
    if golden_frames:
        say("comparing the graphs with the reference")
        worst = verify_stages(staging, [graph["role"] for graph in graphs], precision.name)
        for role, distance in worst.items():
            doubtful = f" (far for {precision.name}: compare fp32)" if not distance <= ROUNDED_DOUBTFUL else ""
            say(f"  {role}: relative L2 {distance:.1e} from the reference{doubtful}")

    licence, text = checkpoint.licence()
    (staging / "LICENSE").write_text(text)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "family": family.NAME,
        "resolution": resolution,
        "grid": resolution // family.patch_and_window(config)[0],
        "precision": precision.name,
        "preprocess": preprocess,
        "graphs": graphs,
        "policy": family.manifest_policy(config),
        "masks": masks,
        "memory": memory,
        **found,
        "source": {
            "id": Path(checkpoint.source).name if Path(checkpoint.source).is_dir() else checkpoint.source,
            "model_type": checkpoint.model_type,
            "sha256": checkpoint.sha256(),
            "licence": licence,
            "random_weights": checkpoint.random_weights,
        },
        "golden": [
            {**_file(staging, path), "kind": path.stem if path.suffix == ".safetensors" else "input"}
            for path in sorted((staging / "golden").glob("*"))
        ],
        "versions": {
            "snow_export": __version__,
            **{key: version(key) for key in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")},
            "opset": str(OPSET),
        },
    }
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _write_graphs(specs: list[GraphSpec], staging: Path, precision: Precision, say) -> list[dict]:
    described = []
    for index, spec in enumerate(specs):
        say(f"writing {spec.role} ({index + 1} of {len(specs)})")
        path = write_graph(spec, staging)
        weights = linear_weights(spec.stage) if precision.int8_linear else None
        if weights:
            count = quantize_linear(path, weights)
            say(f"  {count} linear layers in int8")
        described.append(_describe(spec.role, path))
        # A stage's tensors are not needed once its file is there.
        spec.stage = None
    return described


def _file(folder: Path, path: Path) -> dict:
    return {"file": path.relative_to(folder).as_posix(), "sha256": file_sha256(path), "bytes": path.stat().st_size}


def _describe(role: str, path: Path) -> dict:
    data = path.with_name(path.name + ".data")
    inputs, outputs = read_signature(path)
    return {
        "role": role,
        **_file(path.parent, path),
        "data": _file(path.parent, data) if data.exists() else None,
        "inputs": inputs,
        "outputs": outputs,
    }


def _run_golden(staging: Path, checkpoint: Checkpoint, resolution: int, preprocess: dict, frames: int, say) -> None:
    say(f"running the reference on {frames} frames")
    _run_reference("golden", staging, checkpoint, resolution, preprocess, ["--frames", str(frames)])


def _run_golden_detector(staging: Path, checkpoint: Checkpoint, resolution: int, preprocess: dict, say) -> None:
    say("running the reference's detector")
    _run_reference("golden_detector", staging, checkpoint, resolution, preprocess, [])


def _run_reference(module: str, staging: Path, checkpoint: Checkpoint, resolution: int, preprocess: dict, more) -> None:
    """The reference runs in a process of its own, where nothing of this export can touch it."""
    command = [sys.executable, "-m", f"snow_export.{module}", str(checkpoint.folder), "--res", str(resolution)]
    command += ["--preprocess", json.dumps(preprocess), "--out", str(staging / "golden"), *more]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        last = run.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ExportError(f"{checkpoint.source}: the reference failed at {resolution} px: {last[0]}")
