"""Trains snow-tiny: `python -m snow_export.tiny.train --out DIR`. Interrupt it at any time; the same command resumes.

What a step sees follows from the seed and the step alone. On a CPU two runs of one seed and one number of threads are
equal to the bit; on a GPU some sums have no fixed order.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .batches import SCHEDULE, Batch, Steps, phase_at
from .model import new_model, resized
from .rollout import Tracker, loss_of, roll_out, targets

EMA_DECAY = 0.999


def step_loss(tracker: Tracker, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean loss of a batch, and its figures `[3]`: mean IoU on the prompted frames, on later frames, and how often the
    object score is on the right side.
    """
    predictions = roll_out(tracker, batch.images, batch.window_of, batch.prompt())
    truth = batch.truth()
    losses, ious, right = [], [], []
    for frame, prediction in enumerate(predictions):
        target = targets(truth[:, frame], prediction.masks.shape[-1])
        loss, iou = loss_of(prediction, target)
        losses.append(loss.mean())
        ious.append(iou.detach())
        right.append(((prediction.score[:, 0] > 0) == truth[:, frame].flatten(1).any(dim=1)).float().mean())
    later = torch.cat(ious[1:]).nanmean() if len(ious) > 1 else torch.full_like(losses[0], torch.nan)
    return torch.stack(losses).mean(), torch.stack([ious[0].nanmean(), later.detach(), torch.stack(right).mean()])


def learning_rate(step: int, peak: float) -> float:
    """Warm-up, then a cosine to a hundredth over the whole schedule."""
    warm = min(1.0, (step + 1) / 200)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / SCHEDULE[-1].until, 1.0))))


class Training:
    """A model, the mean of its recent weights, and its optimiser."""

    def __init__(self, seed: int, device: torch.device, rate: float):
        self.model = new_model(seed)
        # The tracker drops the fourth pyramid level, so nothing would ever move it.
        self.model.vision_encoder.neck.fpn_layers[3].requires_grad_(False)
        self.trackers = {side: Tracker(self._at(side)) for side in (224, 336)}
        for part in (self.model, *self.trackers.values()):
            part.to(device).train()
        self.named = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.mean = {name: value.detach().clone() for name, value in self.named.items()}
        fused = device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            self.named.values(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=fused
        )
        self.step = 0

    def _at(self, side: int) -> nn.Module:
        return self.model if side == self.model.config.image_size else resized(self.model, side)

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of the optimiser; a loss that is not finite leaves the weights as they are."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        if not torch.isfinite(norm):
            return
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in self.named.values()], 1 - decay)

    def save(self, folder: Path) -> None:
        """Writes `checkpoint/` (the mean weights, as transformers saves them) and what a resume needs."""
        state = {"step": torch.tensor(self.step)}
        state |= {f"weight.{name}": value.detach() for name, value in self.named.items()}
        state |= {f"mean.{name}": value for name, value in self.mean.items()}
        for index, entry in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{index}.{key}": value for key, value in entry.items()}
        save_file({key: value.cpu().contiguous() for key, value in state.items()}, folder / "state.safetensors.partial")
        raw = {name: value.detach().clone() for name, value in self.named.items()}
        self._load(self.mean)
        self.model.save_pretrained(folder / "checkpoint.partial")
        self._load(raw)
        target = folder / "checkpoint"
        target.mkdir(exist_ok=True)
        for path in (folder / "checkpoint.partial").iterdir():
            path.rename(target / path.name)
        (folder / "checkpoint.partial").rmdir()
        (folder / "state.safetensors.partial").rename(folder / "state.safetensors")

    def resume(self, folder: Path) -> None:
        """Loads what `save` wrote, if there is something."""
        path = folder / "state.safetensors"
        if not path.exists():
            return
        state = load_file(path)
        self._load({name: state[f"weight.{name}"] for name in self.named})
        for name, value in self.mean.items():
            value.copy_(state[f"mean.{name}"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            # Parameters that no step has moved yet (the memory, while frames are single) have no entry.
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                entries.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": entries, "param_groups": groups})
        self.step = int(state["step"])

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(values[name])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=SCHEDULE[-1].until, help="stop after this step of the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--shrink", type=int, default=1, help="divide the clips of a step by this, for small machines")
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads; 0 for its own choice")
    parser.add_argument("--every", type=int, default=50, help="steps between lines of the curve")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")
    begun = time.monotonic()
    device = torch.device(arguments.device)
    training = Training(arguments.seed, device, arguments.rate)
    arguments.out.mkdir(parents=True, exist_ok=True)
    training.resume(arguments.out)
    log = arguments.out / "curve.jsonl"
    last = min(arguments.steps, SCHEDULE[-1].until)
    batches = DataLoader(
        Subset(Steps(arguments.seed, arguments.shrink), range(training.step, last)),
        batch_size=None,
        num_workers=arguments.workers,
        prefetch_factor=3,
        # CUDA does not survive a fork.
        multiprocessing_context="forkserver" if device.type == "cuda" else None,
    )
    since, window = time.monotonic(), []
    for batch in batches:
        if batch is not None:
            tracker = training.trackers[phase_at(training.step).side(training.step)]
            loss, figures = step_loss(tracker, batch.to(device))
            training.update(loss, learning_rate(training.step, arguments.rate))
            # Reading a value would wait for the device at every step.
            window.append(torch.cat((loss.detach().view(1), figures)))
        training.step += 1
        stop = (time.monotonic() - begun) / 60 > arguments.minutes
        if training.step % arguments.every == 0 or stop:
            means = np.nanmean(torch.stack(window).cpu().numpy(), axis=0) if window else [math.nan] * 4
            seconds = (time.monotonic() - since) / max(len(window), 1)
            names = ("loss", "iou_first", "iou_later", "score_right")
            values = {"step": training.step} | dict(zip(names, means, strict=True)) | {"seconds": seconds}
            line = json.dumps({key: round(float(value), 4) for key, value in values.items()})
            print(line, flush=True)
            with log.open("a") as file:
                file.write(line + "\n")
            since, window = time.monotonic(), []
        if training.step % 500 == 0 or stop:
            training.save(arguments.out)
        if stop:
            break
    training.save(arguments.out)


if __name__ == "__main__":
    main()
