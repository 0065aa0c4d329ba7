"""Proves snow-ort on a GPU: `python -m snow_export.gpu_proof`, or `scripts/gpu-proof`.

Parity with the unpatched reference, where every node runs and with which attention kernel, memory of the whole process
on the device, and speed beside PyTorch. Each step's result goes to `gpu.json` as soon as it is there; a second run goes
on after the last. `--device cpu` is a dry run of the same steps on the processor, with a small checkpoint.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from .compare import compare
from .errors import ExportError
from .on_demand import export, random_checkpoint
from .outputs import replace_text
from .tiny.clips import Settings, make_clip
from .tiny.heldout import box_of

# Held-out clip, frames, and the side it is drawn at.
CLIP_SEED, CLIP_FRAMES, CLIP_SIDE = 1_001, 24, 336
ATTENTION_DEBUG = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"


@dataclass
class Proof:
    """What all steps share."""

    program: Path
    work: Path
    device: str
    checkpoint: Path
    sizes: list[int]
    objects: list[int]
    options: list[str]
    # Frames of the clip in which nothing may grow.
    long: int = 500
    # Another ONNX Runtime, and where the libraries are that it needs.
    older: str | None = None
    older_path: str | None = None

    def snow_ort(self, *words, **environment: str) -> str:
        """Runs the program and returns what it printed; raises `ExportError` with its words if it fails."""
        command = [str(word) for word in (self.program, *words, "--provider", self.device, *self.options)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
        if done.returncode:
            raise ExportError(f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr

    def python(self, module: str, *words) -> None:
        """Runs a module of this package in a process of its own."""
        command = [sys.executable, "-W", "ignore", "-m", f"snow_export.{module}", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExportError(f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")

    def bundle(self, res: int, precision: str = "fp16") -> Path:
        """A bundle of the checkpoint at a resolution."""
        return export(self.checkpoint, "proof", res, precision, self.work)

    def clip(self) -> Path:
        """A drawn clip as a folder of images."""
        folder = self.work / "clip"
        if not folder.exists():
            partial = self.work / "clip.partial"
            partial.mkdir(parents=True, exist_ok=True)
            clip = make_clip(CLIP_SEED, Settings(side=CLIP_SIDE, frames=CLIP_FRAMES))
            for index, frame in enumerate(clip.frames):
                Image.fromarray(frame).save(partial / f"{index:05d}.png")
            (self.work / "clip.json").write_text(json.dumps(object_boxes(clip.ids[0])))
            partial.rename(folder)
        return folder

    def long_clip(self) -> Path:
        """The clip forwards and backwards, again and again."""
        frames = sorted(self.clip().iterdir())
        frames += frames[-2:0:-1]
        folder = self.work / f"clip-{self.long}"
        folder.mkdir(exist_ok=True)
        for index in range(self.long):
            link = folder / f"{index:05d}.png"
            if not link.exists():
                link.hardlink_to(frames[index % len(frames)])
        return folder

    def real_boxes(self) -> Path:
        """A prompts file with the boxes of the clip's objects."""
        self.clip()
        return self.work / "clip.json"

    def boxes(self, count: int) -> Path:
        """A prompts file with `count` boxes over the first frame."""
        path = self.work / f"boxes-{count}.json"
        columns = int(count**0.5) + (int(count**0.5) ** 2 < count)
        step = CLIP_SIDE / columns
        entries = []
        for index in range(count):
            left, top = index % columns * step, index // columns * step
            box = [left + 0.1 * step, top + 0.1 * step, left + 0.9 * step, top + 0.9 * step]
            entries.append({"frame": 0, "object": index + 1, "box": [round(value, 1) for value in box]})
        path.write_text(json.dumps(entries))
        return path


def object_boxes(ids: np.ndarray) -> list[dict]:
    """Prompts for a frame's objects, from its ids u8 `[h, w]`: a box around each."""
    identities = sorted(set(ids.flatten().tolist()) - {0})
    return [{"frame": 0, "object": identity, "box": box_of(ids == identity)} for identity in identities]


class DeviceMemory:
    """The most that a GPU had in use while a block ran, beyond what it had before, in bytes; None without a GPU."""

    def __init__(self, device: str):
        self.watched = device == "cuda"
        self.peak, self.before, self.samples = 0, 0, []
        self.over = threading.Event()

    @staticmethod
    def _used() -> int:
        index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        command = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) << 20

    def __enter__(self) -> "DeviceMemory":
        if self.watched:
            self.before = self._used()
            self.thread = threading.Thread(target=self._watch)
            self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self.samples.append(self._used())

    def __exit__(self, *_) -> None:
        self.over.set()
        if self.watched:
            self.thread.join()

    def half_way(self) -> int | None:
        """The peak of the first half of the time."""
        return max(self.samples[: len(self.samples) // 2], default=self.before) - self.before if self.watched else None

    def bytes(self) -> int | None:
        """The peak."""
        return max(self.samples, default=self.before) - self.before if self.watched else None


def environment(proof: Proof) -> dict:
    """The machine and the versions."""
    import torch

    found = {"torch": torch.__version__, "python": sys.version.split()[0], "cores": os.cpu_count()}
    if proof.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split("\n")[0]
    return found


def _parity(proof: Proof, name: str, checkpoint: Path, bundle: Path, res: int, prompts: Path) -> dict:
    logits = proof.work / f"{name}-logits"
    expected = proof.work / f"{name}-expected"
    words = [checkpoint, "--frames", proof.clip(), "--prompts", prompts, "--res", res, "--out", expected]
    if not expected.exists():
        proof.python("reference", *words, "--device", proof.device)
    out = proof.work / f"{name}-run"
    common = ["run", proof.clip(), "--prompts", prompts, "--model", bundle, "--out", out, "--overwrite", "--quiet"]
    proof.snow_ort(*common, "--dump-logits", logits)
    result = compare(logits, expected)
    return {
        "frames": len(result.frames),
        "objects": len(json.loads(prompts.read_text())),
        "mean_iou": result.mean_iou,
        "worst_iou": min(result.iou),
        "relative_l2_first_tracked": result.relative_l2[1],
        "relative_l2_worst": max(result.relative_l2),
        "positive": sum(result.positive) / len(result.positive),
    }


def parity_small(proof: Proof) -> dict:
    """The trained small model in fp16 against the reference in fp32."""
    model = Path("models/snow-tiny")
    return _parity(proof, "parity-small", model / "checkpoint", model / "snow-tiny-336-fp16", 336, proof.real_boxes())


def parity_full(proof: Proof) -> dict:
    """The full size in fp16 against the reference in fp32, 24 frames."""
    res = proof.sizes[0]
    return _parity(proof, f"parity-{res}", proof.checkpoint, proof.bundle(res), res, proof.boxes(2))


def placement(proof: Proof) -> dict:
    """Providers of all nodes, copies to and from the host, and the attention kernels."""
    bundle, table = proof.bundle(proof.sizes[-1]), proof.work / "placement.json"
    lengths = ["--warm", 8, "--rounds", 1, "--block", 4]
    words = ["bench", "--model", bundle, "--objects", 4, *lengths, "--profile", "--json", table]
    proof.snow_ort(*words, "--overwrite", "--quiet")
    arm = json.loads(table.read_text())["cases"][0]["arms"][0]
    nodes: dict[str, dict[str, int]] = {}
    copies = {}
    for graph in arm["profile"]:
        counts: dict[str, int] = {}
        for operator in graph["operators"]:
            key = f"{operator['provider']}: {operator['name']}"
            if operator["provider"].startswith(proof.device.upper()):
                key = operator["provider"]
            counts[key] = counts.get(key, 0) + round(operator["nodes"])
            if operator["name"].startswith("Memcpy"):
                name = f"{graph['role']} {operator['name']}"
                copies[name] = {"nodes": operator["nodes"], "bytes": operator["output_bytes"]}
        nodes[graph["role"]] = counts
    out = proof.work / "kernels-run"
    words = ["run", proof.clip(), "--prompts", proof.boxes(2), "--model", bundle, "--out", out]
    said = proof.snow_ort(*words, "--overwrite", "--quiet", **{ATTENTION_DEBUG: "1"})
    kernels: dict[str, int] = {}
    for line in re.findall(r"Operator=.*", said):
        kernel = " ".join(re.findall(r"(?:Operator|DataType|SdpaKernel)=\w+", line))
        kernels[kernel] = kernels.get(kernel, 0) + 1
    report = json.loads((out / "run.json").read_text())
    found = {"nodes": nodes, "copies_within_graphs": copies, "attention_kernels": kernels}
    if report["copies"]:
        image = 3 * proof.sizes[-1] ** 2
        found["bytes_a_frame"] = {name: value / report["frames"] for name, value in report["copies"].items()}
        found["bytes_a_frame"]["of which the image"] = image
    return found


# One kernel each, by the variables that switch off those before it.
KERNELS = {
    "cudnn flash": {},
    "flash": {"ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0"},
    "memory-efficient": {"ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0", "ORT_DISABLE_FLASH_ATTENTION": "1"},
}


def attention(proof: Proof) -> dict:
    """Milliseconds of the memory's attention for an object and its error, by kernel and width of the values."""
    words = ["--device", proof.device, "--grid", str(proof.sizes[0] // 14)]
    command = [sys.executable, "-W", "ignore", "-m", "snow_export.gpu_attention", *words]
    found = {}
    for name, variables in KERNELS.items() if proof.device == "cuda" else [("processor", {})]:
        environment = os.environ | variables
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise ExportError(f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}")
        found[name] = {f"values of {width}": value for width, value in json.loads(done.stdout).items()}
    return found


def _watched_run(proof: Proof, frames: Path, res: int, count: int, limit: str) -> dict:
    """A run inside of a limit and the most that its process had on the device."""
    out = proof.work / "memory-run"
    words = ["run", frames, "--prompts", proof.boxes(count), "--model", proof.bundle(res), "--out", out]
    with DeviceMemory(proof.device) as watched:
        proof.snow_ort(*words, "--mem-limit", limit, "--overwrite", "--quiet")
    report = json.loads((out / "run.json").read_text())
    return {
        "device_bytes": watched.bytes(),
        "half_way_bytes": watched.half_way(),
        "arena_bytes": report["arena"]["peak_bytes"],
        "limit_bytes": report["arena"]["limit_bytes"],
        "predicted_bytes": report["arena"]["predicted_bytes"],
        "resident_bytes": report["peak_memory_bytes"],
        "chunk": report["runtime"]["chunk"],
    }


# Objects and the limit on the arena; the CUDA context comes on top, 0.6 GiB on an H100.
LIMITS = {20: "2250MiB", 200: "3250MiB"}
SMALL_LIMITS = {20: "1300MiB", 200: "3250MiB"}


def memory(proof: Proof) -> dict:
    """Peaks of whole processes on the device, ours and the reference's."""
    found = {}
    for res in proof.sizes:
        for count, limit in (LIMITS if res > 700 else SMALL_LIMITS).items():
            found[f"{res} px, {count} objects"] = _watched_run(proof, proof.clip(), res, count, limit)
        words = [proof.checkpoint, "--res", res, "--precision", "fp16", "--device", proof.device, "--frames", 16]
        command = [sys.executable, "-W", "ignore", "-m", "snow_export.bench_reference", *map(str, words)]
        command += ["--input", str(proof.clip()), "--prompts", str(proof.boxes(20))]
        with DeviceMemory(proof.device) as watched:
            done = subprocess.run(command, input="x\n" * 12, capture_output=True, text=True, check=False)
        found[f"{res} px, 20 objects, PyTorch"] = {
            "device_bytes": watched.bytes(),
            "failed": done.stderr[-500:] if done.returncode else None,
        }
    return found


def growth(proof: Proof) -> dict:
    """The peak after half of a long clip and after all of it, in the smallest resolution."""
    return _watched_run(proof, proof.long_clip(), proof.sizes[-1], 20, SMALL_LIMITS[20]) | {"frames": proof.long}


def speed(proof: Proof) -> dict:
    """Ours against the reference in fp16, and ours alone with many objects."""
    found = {}
    for res in proof.sizes:
        for objects in proof.objects:
            table = proof.work / f"speed-{res}-{objects}.json"
            # Steady from here on: up to 16 pointers come in, and kernels are planned anew for each length of memory.
            lengths = ["--warm", 24, "--rounds", 4, "--block", 4]
            words = ["bench", "--model", proof.bundle(res), "--objects", objects, *lengths]
            if objects <= 16:
                # The rest of its arguments comes from `snow-ort bench`.
                reference = f"{sys.executable} -W ignore -m snow_export.bench_reference {proof.checkpoint} --res {res}"
                words += ["--against", f"pytorch={reference} --precision fp16 --device {proof.device}"]
            proof.snow_ort(*words, "--json", table, "--overwrite", "--quiet")
            case = json.loads(table.read_text())["cases"][0]
            seconds = {arm["name"]: arm["frame_s"]["median"] for arm in case["arms"]}
            found[f"{res} px, {objects} objects"] = {
                "frames_per_second": {name: 1 / value for name, value in seconds.items()},
                "times_faster": [1 / ratio["frame"]["median"] for ratio in case["ratios"]],
                "stages_s": {name: spread["median"] for name, spread in case["arms"][0]["stages_s"]},
            }
    return found


def older_library(proof: Proof) -> dict:
    """The small model with another ONNX Runtime, as for a V100: its masks against those of the first library."""
    if not proof.older:
        return {"not run": "no --older-ort-lib"}
    model = Path("models/snow-tiny/snow-tiny-336-fp16")
    words = ["run", proof.clip(), "--prompts", proof.real_boxes(), "--model", model, "--overwrite", "--quiet"]
    runs = {"first": proof, "older": replace(proof, options=["--ort-lib", proof.older])}
    path = os.environ.get("LD_LIBRARY_PATH", "")
    for name, each in runs.items():
        libraries = {"LD_LIBRARY_PATH": f"{proof.older_path}:{path}"} if name == "older" and proof.older_path else {}
        out, logits = proof.work / f"library-{name}", proof.work / f"library-{name}-logits"
        each.snow_ort(*words, "--out", out, "--dump-logits", logits, **libraries)
    result = compare(proof.work / "library-older-logits", proof.work / "library-first-logits")
    reports = [json.loads((proof.work / f"library-{name}" / "run.json").read_text()) for name in runs]
    return {
        "onnxruntime": [report["runtime"]["onnxruntime"] for report in reports],
        "mean_iou": result.mean_iou,
        "worst_iou": min(result.iou),
    }


ALL = (environment, parity_small, placement, attention, parity_full, memory, growth, speed, older_library)
STEPS = {step.__name__: step for step in ALL}


def show(results: dict) -> None:
    """A short table of what is there."""
    for name, result in results.items():
        print(f"\n{name} ({result['seconds']:.0f} s)")
        if "error" in result:
            print(f"  FAILED: {result['error'].strip().splitlines()[-1]}")
            continue
        for key, value in result["found"].items():
            print(f"  {key}: {json.dumps(value)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--checkpoint", type=Path, help="[default: full size, random weights, made here]")
    parser.add_argument("--res", default="1008,672", help="the first is also that of the parity step")
    parser.add_argument("--objects", default="1,16,64,128", help="for speed; PyTorch runs up to 16")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"of {', '.join(STEPS)}")
    parser.add_argument("--work", type=Path, default=Path("out/gpu"))
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--ort-lib", help="ONNX Runtime's library, as for `snow-ort run`")
    parser.add_argument("--long", type=int, default=500, help="frames of the growth step")
    parser.add_argument("--older-ort-lib", help="another ONNX Runtime to compare with, such as 1.26.0 for a V100")
    parser.add_argument("--older-libraries", help="folders of the CUDA and cuDNN libraries that it needs, as a path")
    parser.add_argument("--again", action="store_true", help="repeat steps that are done")
    arguments = parser.parse_args()
    steps = arguments.steps.split(",")
    for name in steps:
        if name not in STEPS:
            parser.error(f"--steps: {name!r} is not one of {', '.join(STEPS)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    proof = Proof(
        program=arguments.program.resolve(),
        work=arguments.work,
        device=arguments.device,
        checkpoint=arguments.checkpoint or random_checkpoint(arguments.work),
        sizes=[int(res) for res in arguments.res.split(",")],
        objects=[int(count) for count in arguments.objects.split(",")],
        options=["--ort-lib", arguments.ort_lib] if arguments.ort_lib else [],
        long=arguments.long,
        older=arguments.older_ort_lib,
        older_path=arguments.older_libraries,
    )
    file = arguments.work / "gpu.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in steps:
        if "found" in results.get(name, {}) and not arguments.again:
            continue
        print(f"-- {name}", flush=True)
        start = time.monotonic()
        try:
            result = {"found": STEPS[name](proof)}
        except Exception as error:
            # A step that cannot be done must not hide what the others show.
            result = {"error": str(error) if isinstance(error, ExportError) else traceback.format_exc()}
        results[name] = result | {"seconds": time.monotonic() - start}
        replace_text(file, json.dumps(results, indent=1) + "\n")
    show(results)
    sys.exit(1 if any("error" in results[name] for name in steps) else 0)


if __name__ == "__main__":
    main()
