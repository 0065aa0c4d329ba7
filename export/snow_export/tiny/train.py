"""Trains snow-tiny: `python -m snow_export.tiny.train --out DIR`. Interrupt it at any time; the same command resumes.

What a step sees follows from the seed and the step alone. On a CPU two runs of one seed and one number of threads are
equal to the bit; on a GPU some sums have no fixed order. With several GPUs, each trains on clips of its own and the
gradients are averaged.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .batches import SCHEDULES, Batch, Clips, Pool, clips_before, make_batch, view_at
from .model import new_model, resized, trained_model
from .rollout import Tracker, loss_of, roll_out, targets

EMA_DECAY = 0.999
FIGURES = ("loss", "iou_first", "iou_later", "score_right")


def step_loss(tracker: Tracker, batch: Batch) -> Tensor:
    """`FIGURES` of a batch, f32 `[4]`: the loss, the mean IoU on the prompted frames and on later frames, and how often
    the object score is on the right side. Only the loss has a gradient.
    """
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=tracker.rounded):
        predictions = roll_out(tracker, batch.images, batch.window_of, batch.prompt())
    weight = batch.weight / batch.weight.sum().clamp(min=1)
    losses, ious, right = [], [], []
    for frame, prediction in enumerate(predictions):
        seen = batch.truth[:, frame]
        loss, iou = loss_of(prediction, targets(seen, prediction.masks.shape[-1]))
        losses.append((weight * loss).sum())
        ious.append(torch.where(weight > 0, iou.detach(), torch.nan))
        right.append((weight * ((prediction.score[:, 0] > 0) == seen.flatten(1).any(dim=1))).sum())
    later = torch.cat(ious[1:]).nanmean() if len(ious) > 1 else torch.full_like(losses[0], torch.nan)
    loss = torch.stack(losses).mean()
    return torch.stack([loss, ious[0].nanmean(), later.detach(), torch.stack(right).mean().detach()])


def learning_rate(step: int, done: float, peak: float) -> float:
    """Warm-up of 300 steps, then a cosine to a hundredth while `done` goes from 0 to 1."""
    warm = min(1.0, (step + 1) / 300)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class Graph:
    """A forward and backward pass recorded once as a CUDA graph: small kernels cost more to launch than to run.

    `pool` is the memory that all recorded graphs share; they run one after another.
    """

    def __init__(self, tracker: Tracker, batch: Batch, flat_grad: Tensor, pool):
        self.batch = Batch(**{f.name: self._own(getattr(batch, f.name)) for f in fields(Batch)})
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step_loss(tracker, self.batch)[0].backward()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads (NCCL's, the clip reader's) may use the device meanwhile.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            flat_grad.zero_()
            self.figures = step_loss(tracker, self.batch)
            self.figures[0].backward()

    @staticmethod
    def _own(value):
        return value.clone() if isinstance(value, Tensor) else value

    def run(self, batch: Batch) -> Tensor:
        """Figures of a batch of the same shapes; its gradient is in the flat gradient afterwards."""
        for entry in fields(Batch):
            value = getattr(batch, entry.name)
            if isinstance(value, Tensor):
                getattr(self.batch, entry.name).copy_(value)
        self.graph.replay()
        return self.figures.detach().clone()


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


class Training:
    """A model, the mean of its recent weights, and its optimisers."""

    def __init__(self, model: nn.Module, device: torch.device, rate: float, graphs: bool):
        self.model = model
        # The tracker drops the fourth pyramid level, so nothing would ever move it.
        self.model.vision_encoder.neck.fpn_layers[3].requires_grad_(False)
        self.trackers = {side: Tracker(self._at(side), rounded=device.type == "cuda") for side in (224, 336)}
        for part in (self.model, *self.trackers.values()):
            part.to(device).train()
        self.named = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.mean = {name: value.detach().clone() for name, value in self.named.items()}
        # One buffer holds all gradients: cheap to clear, to average between GPUs, and to clip.
        self.flat_grad = torch.zeros(sum(value.numel() for value in self.named.values()), device=device)
        start = 0
        for value in self.named.values():
            value.grad = self.flat_grad[start : start + value.numel()].view_as(value)
            start += value.numel()
        self.optimisers = optimisers(list(self.named.values()), rate)
        self.graphs: dict[tuple, Graph] | None = {} if graphs else None
        self.memory = None
        self.step = 0

    def _at(self, side: int) -> nn.Module:
        return self.model if side == self.model.config.image_size else resized(self.model, side)

    def gradient(self, batch: Batch, kind: str) -> Tensor:
        """Figures of a batch; its gradient is left in `flat_grad`."""
        tracker = self.trackers[batch.images.shape[2]]
        if self.graphs is None:
            self.flat_grad.zero_()
            figures = step_loss(tracker, batch)
            figures[0].backward()
            return figures.detach()
        key = (tuple(batch.images.shape), len(batch.weight), kind)
        if key not in self.graphs:
            self.memory = self.memory or torch.cuda.graph_pool_handle()
            self.graphs[key] = Graph(tracker, batch, self.flat_grad, self.memory)
        return self.graphs[key].run(batch)

    def update(self, rate: float, ranks: int) -> None:
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

    def save(self, folder: Path) -> None:
        """Writes `checkpoint/` (the mean weights, as transformers saves them) and what a resume needs."""
        state = {"step": torch.tensor(self.step)}
        state |= {f"weight.{name}": value.detach() for name, value in self.named.items()}
        state |= {f"mean.{name}": value for name, value in self.mean.items()}
        for number, optimiser in enumerate(self.optimisers):
            for index, entry in optimiser.state_dict()["state"].items():
                state |= {f"optimiser.{number}.{index}.{key}": value for key, value in entry.items()}
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
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.named.items():
            parameter.copy_(values[name])


def clip_stream(options, rank: int, first: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The clips of a rank from number `first` on, made ahead by worker processes."""
    schedule = SCHEDULES[options.schedule]
    last = clips_before(schedule, schedule[-1].until)
    return iter(
        DataLoader(
            Subset(Clips(options.seed, rank), range(first, last)),
            batch_size=None,
            num_workers=options.workers,
            prefetch_factor=6,
            pin_memory=device.type == "cuda",
            # CUDA does not survive a fork.
            multiprocessing_context="forkserver" if device.type == "cuda" else None,
        )
    )


def train(rank: int, options: argparse.Namespace) -> None:
    """One rank's training; rank 0 writes."""
    begun = time.monotonic()
    device = torch.device(options.device, rank) if options.device == "cuda" else torch.device(options.device)
    if options.gpus > 1:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", rank=rank, world_size=options.gpus, device_id=device)
    torch.set_float32_matmul_precision("high")
    model = trained_model(options.start) if options.start else new_model(options.seed)
    training = Training(model, device, options.rate, graphs=device.type == "cuda" and not options.no_graphs)
    training.resume(options.out)
    pool = Pool(options.pool, device)
    # A resumed run fills its pool with the clips that it had.
    schedule = SCHEDULES[options.schedule]
    due = clips_before(schedule, training.step)
    number = max(0, due - options.pool)
    # cuDNN plans its attention anew for every shape, and a rollout has one for each length of the memory.
    torch.backends.cuda.enable_cudnn_sdp(False)
    stream = clip_stream(options, rank, number, device)
    since, window = time.monotonic(), []
    steps = schedule[-1].until
    last = min(options.steps, steps) if options.steps else steps
    minutes = 0.0
    while training.step < last:
        view = view_at(schedule, training.step)
        due += view.fresh
        while number < due:
            pool.add(number, *next(stream))
            number += 1
        batch, kind = make_batch(pool, view, training.step, options.seed, rank, options.shrink)
        figures = training.gradient(batch, kind)
        done = max(training.step / steps, minutes / options.finish_in)
        training.update(learning_rate(training.step, done, options.rate), options.gpus)
        # Reading a value would wait for the device at every step.
        window.append(figures)
        training.step += 1
        minutes = agreed((time.monotonic() - begun) / 60, minutes, training.step, options.gpus, device)
        stop = minutes > min(options.minutes, options.finish_in)
        if training.step % options.every == 0 or stop:
            means = torch.stack(window).nanmean(dim=0).tolist()
            values = dict(zip(FIGURES, means, strict=True)) | {"seconds": (time.monotonic() - since) / len(window)}
            if not math.isfinite(values["loss"]):
                raise SystemExit(f"step {training.step}: the loss is {values['loss']}; resume with a smaller --rate")
            if rank == 0:
                report(options.out / "curve.jsonl", training.step, values)
            since, window = time.monotonic(), []
        if rank == 0 and (training.step % 1000 == 0 or stop):
            training.save(options.out)
        if stop:
            break
    if rank == 0:
        training.save(options.out)
    if options.gpus > 1:
        dist.barrier()
        dist.destroy_process_group()


def agreed(minutes: float, before: float, step: int, ranks: int, device: torch.device) -> float:
    """The minutes that rank 0 has run; ranks ask it at every tenth step only, and keep what it said `before`."""
    if ranks == 1:
        return minutes
    if step % 10:
        return before
    shared = torch.tensor([minutes], device=device)
    dist.broadcast(shared, 0)
    return float(shared.item())


def report(log: Path, step: int, values: dict[str, float]) -> None:
    """Prints a line of the curve and adds it to its file."""
    line = json.dumps({"step": step} | {key: round(value, 4) for key, value in values.items()})
    print(line, flush=True)
    with log.open("a") as file:
        file.write(line + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="checkpoint to begin with, instead of new weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of this host to train on")
    parser.add_argument("--no-graphs", action="store_true", help="launch every kernel by itself on a GPU")
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="whole", help="which phases to go through")
    parser.add_argument("--steps", type=int, help="stop after this step of the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time")
    parser.add_argument(
        "--finish-in",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="let the learning rate come down in this time, then stop; how far a run comes is then up to the machine",
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--shrink", type=int, default=1, help="divide what a step sees by this, for small machines")
    parser.add_argument("--pool", type=int, default=768, help="clips kept, 13 MB each")
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips, for each GPU")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads; 0 for its own choice")
    parser.add_argument("--every", type=int, default=50, help="steps between lines of the curve")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.gpus == 1:
        train(0, options)
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29521")
    torch.multiprocessing.spawn(train, args=(options,), nprocs=options.gpus)


if __name__ == "__main__":
    main()
