"""What every training here has: parameters and the mean of their recent values, optimisers, a curve, and what a resume
needs.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

EMA_DECAY = 0.999


def add_times(parser: argparse.ArgumentParser) -> None:
    """Options of every training that say how long it runs."""
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time")
    parser.add_argument(
        "--finish-in",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="let the learning rate come down in this time, then stop; how far a run comes is then up to the machine, "
        "and a resumed run counts from its own start",
    )


def made_ahead(dataset: Dataset, workers: int, ahead: int, device: torch.device, pinned: bool = False) -> DataLoader:
    """The items of a data set in order, each as it is, made by `workers` processes that keep `ahead` of them each."""
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        pin_memory=pinned,
        # CUDA does not survive a fork.
        multiprocessing_context="forkserver" if workers and device.type == "cuda" else None,
    )


def learning_rate(step: int, done: float, peak: float) -> float:
    """Warm-up of 300 steps, then a cosine to a hundredth while `done` goes from 0 to 1."""
    warm = min(1.0, (step + 1) / 300)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def optimisers(parameters: list[nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of linear layers, AdamW for all else.

    Against AdamW for everything, on the same batches (16 single-frame windows, 32 objects, rate 1e-3): from new weights
    the loss of steps 200 to 250 was 1.65 instead of 1.72, from trained ones that of steps 250 to 300 of a schedule of
    300 was 0.535 instead of 0.543.
    """
    matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) >= 32]
    others = [p for p in parameters if not (p.ndim == 2 and min(p.shape) >= 32)]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=others[0].is_cuda),
    ]


class Learner:
    """The parameters of a model that learn, on their device; `step` counts the updates."""

    def __init__(self, model: nn.Module, rate: float):
        self.named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.mean = {name: value.detach().clone() for name, value in self.named.items()}
        # One buffer holds all gradients: cheap to clear, to average between GPUs, and to clip.
        values = list(self.named.values())
        self.flat_grad = torch.zeros(sum(value.numel() for value in values), device=values[0].device)
        start = 0
        for value in values:
            value.grad = self.flat_grad[start : start + value.numel()].view_as(value)
            start += value.numel()
        self.optimisers = optimisers(values, rate)
        self.step = 0

    def update(self, rate: float, ranks: int = 1) -> None:
        """One step of the optimisers along `flat_grad`, averaged over the ranks and cut to a length of 1."""
        if ranks > 1:
            dist.all_reduce(self.flat_grad)
            self.flat_grad /= ranks
        self.flat_grad *= (1 / self.flat_grad.norm().clamp(min=1e-6)).clamp(max=1)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in self.named.values()], 1 - decay)
        self.step += 1

    def save_state(self, folder: Path) -> None:
        """Writes `state.safetensors`, which a resume needs."""
        state = {"step": torch.tensor(self.step)}
        state |= {f"weight.{name}": value for name, value in self.named.items()}
        state |= {f"mean.{name}": value for name, value in self.mean.items()}
        for number, optimiser in enumerate(self.optimisers):
            for index, entry in optimiser.state_dict()["state"].items():
                state |= {f"optimiser.{number}.{index}.{key}": value for key, value in entry.items()}
        write_tensors(folder / "state.safetensors", state)

    def resume(self, folder: Path) -> None:
        """Loads what `save_state` wrote, if there is something."""
        path = folder / "state.safetensors"
        if not path.exists():
            return
        state = load_file(path)
        self.load({name: state[f"weight.{name}"] for name in self.named})
        for name, value in self.mean.items():
            value.copy_(state[f"mean.{name}"])
        for number, optimiser in enumerate(self.optimisers):
            entries: dict[int, dict[str, Tensor]] = {}
            for name, value in state.items():
                if name.startswith(f"optimiser.{number}."):
                    _, _, index, key = name.split(".")
                    entries.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": entries, "param_groups": groups})
        self.step = int(state["step"])

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Gives the parameters the values of their names."""
        for name, parameter in self.named.items():
            parameter.copy_(values[name])


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file beside, then renames it."""
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial, metadata)
    partial.rename(path)


class Curve:
    """Means of figures over the steps since the last line, printed and added to a file; None for a rank that is silent.

    Reading a value would wait for the device at every step, so figures stay there until a line is due.
    """

    def __init__(self, log: Path | None, names: tuple[str, ...]):
        self.log, self.names = log, names
        self.since, self.window = time.monotonic(), []

    def add(self, figures: Tensor) -> None:
        """The figures of a step, f32 `[names]`; NaN where there is none."""
        self.window.append(figures)

    def line(self, step: int) -> None:
        """Ends the window; a `SystemExit` if the first figure, the loss, is no number."""
        values = dict(zip(self.names, torch.stack(self.window).nanmean(dim=0).tolist(), strict=True))
        values["seconds"] = (time.monotonic() - self.since) / len(self.window)
        if not math.isfinite(values[self.names[0]]):
            raise SystemExit(f"step {step}: the loss is {values[self.names[0]]}; resume with a smaller --rate")
        self.write({"step": step} | values)
        self.since, self.window = time.monotonic(), []

    def write(self, values: dict[str, float]) -> None:
        """Prints a line and adds it to the file, if this rank is not silent."""
        if self.log is not None:
            line = json.dumps({key: round(value, 4) for key, value in values.items()})
            print(line, flush=True)
            with self.log.open("a") as file:
                file.write(line + "\n")
