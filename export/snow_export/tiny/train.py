"""Trains snow-tiny: `python -m snow_export.tiny.train --out DIR`. Interrupt it at any time; the same command resumes.

What a step sees follows from the seed and the step alone. On a CPU two runs of one seed and one number of threads are
equal to the bit; on a GPU some sums have no fixed order. With several GPUs, each trains on clips of its own and the
gradients are averaged.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Subset

from .batches import SCHEDULES, Batch, Clips, Pool, clips_before, make_batch, view_at
from .learner import Curve, Learner, add_times, learning_rate, made_ahead
from .model import SIDES, new_model, resized, trained_model
from .photo_pack import DEFAULT
from .rollout import Tracker, loss_of, roll_out, targets
from .validate import Validation

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
        loss, iou = loss_of(prediction, targets(seen, prediction.masks.shape[-1]), followed=frame > 0)
        losses.append((weight * loss).sum())
        ious.append(torch.where(weight > 0, iou.detach(), torch.nan))
        right.append((weight * ((prediction.score[:, 0] > 0) == seen.flatten(1).any(dim=1))).sum())
    later = torch.cat(ious[1:]).nanmean() if len(ious) > 1 else torch.full_like(losses[0], torch.nan)
    loss = torch.stack(losses).mean()
    return torch.stack([loss, ious[0].nanmean(), later.detach(), torch.stack(right).mean().detach()])


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


class Training(Learner):
    """A tracker that learns, at each side that it is trained at."""

    def __init__(self, model: nn.Module, device: torch.device, rate: float, graphs: bool, keep_backbone: bool = False):
        self.model = model
        self.model.vision_encoder.backbone.requires_grad_(not keep_backbone)
        # The tracker drops the fourth pyramid level, so nothing would ever move it.
        self.model.vision_encoder.neck.fpn_layers[3].requires_grad_(False)
        self.trackers = {side: Tracker(self._at(side), rounded=device.type == "cuda") for side in SIDES}
        for part in (self.model, *self.trackers.values()):
            part.to(device).train()
        super().__init__(model, rate)
        self.graphs: dict[tuple, Graph] | None = {} if graphs else None
        self.memory = None

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

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the model has the mean weights."""
        raw = {name: value.detach().clone() for name, value in self.named.items()}
        self.load(self.mean)
        yield
        self.load(raw)

    def save(self, folder: Path) -> None:
        """Writes `checkpoint/` (the mean weights, as transformers saves them) and what a resume needs."""
        with self.averaged():
            self.model.save_pretrained(folder / "checkpoint.partial")
        target = folder / "checkpoint"
        target.mkdir(exist_ok=True)
        for path in (folder / "checkpoint.partial").iterdir():
            path.rename(target / path.name)
        (folder / "checkpoint.partial").rmdir()
        self.save_state(folder)


def clip_stream(options, rank: int, first: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The clips of a rank from number `first` on, made ahead by worker processes."""
    schedule = SCHEDULES[options.schedule]
    last = clips_before(schedule, schedule[-1].until)
    shares = options.usual, options.lookalikes, options.photographed, options.photographs
    clips = Subset(Clips(options.seed, rank, *shares), range(first, last))
    return iter(made_ahead(clips, options.workers, 6, device, pinned=device.type == "cuda"))


def train(rank: int, options: argparse.Namespace) -> None:
    """One rank's training; rank 0 writes."""
    begun = time.monotonic()
    device = torch.device(options.device, rank) if options.device == "cuda" else torch.device(options.device)
    if options.gpus > 1:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", rank=rank, world_size=options.gpus, device_id=device)
    torch.set_float32_matmul_precision("high")
    model = trained_model(options.start) if options.start else new_model(options.seed)
    training = Training(
        model, device, options.rate, device.type == "cuda" and not options.no_graphs, options.keep_backbone
    )
    training.resume(options.out)
    validation = Validation(options.validate, options.workers, device) if options.validate and rank == 0 else None
    pool = Pool(options.pool, device)
    # A resumed run fills its pool with the clips that it had.
    schedule = SCHEDULES[options.schedule]
    due = clips_before(schedule, training.step)
    number = max(0, due - options.pool)
    # cuDNN plans its attention anew for every shape, and a rollout has one for each length of the memory.
    torch.backends.cuda.enable_cudnn_sdp(False)
    stream = clip_stream(options, rank, number, device)
    curve = Curve(options.out / "curve.jsonl" if rank == 0 else None, FIGURES)
    steps = schedule[-1].until
    last = min(options.steps, steps) if options.steps else steps
    minutes, kept = 0.0, None
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
        curve.add(figures)
        minutes = agreed((time.monotonic() - begun) / 60, minutes, training.step, options.gpus, device)
        stop = minutes > min(options.minutes, options.finish_in)
        if training.step % options.every == 0 or stop:
            curve.line(training.step)
        if rank == 0 and training.step % options.keep_every == 0:
            kept = keep(training, options.out, validation, curve)
        if stop:
            break
    if rank == 0 and kept != training.step:
        keep(training, options.out, validation, curve)
    if options.gpus > 1:
        dist.barrier()
        dist.destroy_process_group()


def keep(training: Training, out: Path, validation: Validation | None, curve: Curve) -> int:
    """Saves, adds a line with the figures of the mean weights to the curve if there are clips for it, and returns the
    step.
    """
    training.save(out)
    if validation is not None:
        with training.averaged():
            curve.write({"step": training.step} | validation.figures(training.trackers))
    return training.step


def agreed(minutes: float, before: float, step: int, ranks: int, device: torch.device) -> float:
    """The minutes that rank 0 has run; ranks ask it at every tenth step only, and keep what it said `before`."""
    if ranks == 1:
        return minutes
    if step % 10:
        return before
    shared = torch.tensor([minutes], device=device)
    dist.broadcast(shared, 0)
    return float(shared.item())


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
    add_times(parser)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--shrink", type=int, default=1, help="divide what a step sees by this, for small machines")
    parser.add_argument("--pool", type=int, default=768, help="clips kept, 26 MB each")
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips, for each GPU")
    parser.add_argument("--usual", type=float, default=0.0, help="share of clips with the settings of the held-out set")
    parser.add_argument("--lookalikes", type=float, default=0.0, help="share of clips with look-alikes that cross")
    parser.add_argument("--photographed", type=float, default=0.0, help="share of clips made of photographs")
    parser.add_argument("--photographs", type=Path, default=DEFAULT, help="folder of photo_pack, for --photographed")
    parser.add_argument(
        "--keep-backbone", action="store_true", help="leave the backbone as it is, so that a detector on it stays valid"
    )
    parser.add_argument(
        "--validate",
        type=int,
        default=0,
        metavar="CLIPS",
        help="clips to measure J on, each time the checkpoint is kept",
    )
    parser.add_argument("--keep-every", type=int, default=1000, help="steps between checkpoints; one more at the end")
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
