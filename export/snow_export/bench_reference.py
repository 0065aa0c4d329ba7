"""The unpatched reference as an arm of `snow-ort bench`: `python -m snow_export.bench_reference CHECKPOINT --res N`.

It speaks the protocol of `src/bench/protocol.rs`: a line of JSON when the model is loaded, then one for every line that
it reads. Hooks take the time of the vision encoder; they change nothing of what the model computes.
"""

import argparse
import json
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers

from .reference import load_processor, load_reference, read_frames, run_frame

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "bf16-autocast": torch.float32}
# As many as `snow-ort worker` keeps.
MOST_FRAMES = 64


def walk(number: int, length: int) -> int:
    """Place in a clip of the `number`-th frame of a walk forwards and backwards: 0, 1, 2, 1, 0, …"""
    if length == 1:
        return 0
    place = number % (2 * (length - 1))
    return min(place, 2 * (length - 1) - place)


class Stopwatch:
    """Seconds that a module spends, `device` waited for."""

    def __init__(self, module: torch.nn.Module, device: torch.device):
        self.seconds, self.device, self.start = 0.0, device, 0.0
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def now(self) -> float:
        """The clock, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _begin(self, *_) -> None:
        self.start = self.now()

    def _end(self, *_) -> None:
        self.seconds += self.now() - self.start


def say(answer: dict) -> None:
    """One line to whoever measures."""
    print(json.dumps(answer), flush=True)


def memory(device: torch.device) -> dict:
    """Peaks of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    on_device = None
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        on_device = total - free
    return {"peak_resident_bytes": peak, "arena_peak_bytes": None, "device_bytes": on_device, "bank_bytes": None}


@torch.inference_mode()
def serve(arguments: argparse.Namespace) -> None:
    """Answers until standard input ends."""
    device = torch.device(arguments.device)
    dtype = DTYPES[arguments.precision]
    model = load_reference(arguments.checkpoint, arguments.res, dtype).to(device)
    processor = load_processor(arguments.res, [0.5] * 3, [0.5] * 3)
    clock = Stopwatch(model.vision_encoder, device)
    what = f"transformers {transformers.__version__}, torch {torch.__version__}, {device}"
    ready = {"what": what, "resolution": arguments.res, "precision": arguments.precision}
    say({"ready": ready | {"threads": torch.get_num_threads()}})

    autocast = arguments.precision == "bf16-autocast"
    cast = torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()
    images = read_frames(arguments.input, MOST_FRAMES)
    order = [walk(number, len(images)) for number in range(arguments.frames)]
    session = processor.init_video_session(
        video=[images[place] for place in order], dtype=dtype, inference_device=device, video_storage_device="cpu"
    )
    prompts = json.loads(arguments.prompts.read_text())
    for number, _ in enumerate(sys.stdin):
        before, start = clock.seconds, clock.now()
        with cast:
            output = run_frame(model, processor, session, number, prompts, arguments.prompts.parent)
            masks = None if output is None else output.pred_masks.float().cpu()
        assert masks is None or masks.isfinite().all(), f"frame {number}: logits that are no numbers"
        seconds = clock.now() - start
        stages = {"vision_encoder": clock.seconds - before}
        say({"frame": {"seconds": seconds, "stages": stages} | memory(device)})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="PyTorch's threads [default: its own choice]")
    parser.add_argument("--input", type=Path, required=True, help="folder of images in name order")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True, help="frames that will be asked for at most")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    serve(arguments)


if __name__ == "__main__":
    main()
