"""Trains snow-tiny's detector on the backbone of its tracker: `python -m snow_export.tiny.train_detector --out DIR`.

Interrupt it at any time; the same command resumes. The backbone stays as it is, so that the tracker does too.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from .captioned import CaptionedBatches, Pairs
from .detector_loss import loss_of, predict
from .detector_model import detector_at, new_detector, tokenizer
from .model import trained_model
from .train import EMA_DECAY, learning_rate, optimisers, report

FIGURES = ("loss", "mask_iou", "score_matched", "score_others", "presence_right")
# What is shown takes turns in fours (words, words, words, boxes), so sides take turns in threes.
SIDES = (336, 224, 336)


class DetectorTraining:
    """A detector, the mean of its recent weights, and its optimisers."""

    def __init__(self, start: Path, seed: int, device: torch.device, rate: float):
        self.device = device
        model = new_detector(seed, trained_model(start), 224, len(tokenizer()))
        self.models = {224: model, 336: detector_at(model, 336)}
        for part in self.models.values():
            part.to(device).train()
        self.named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.mean = {name: value.detach().clone() for name, value in self.named.items()}
        self.optimisers = optimisers(list(self.named.values()), rate)
        self.step = 0

    def update(self, pairs: Pairs, rate: float) -> Tensor:
        """One step; the figures of the batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            model = self.models[pairs.images.shape[1]]
            figures = loss_of(model, predict(model, pairs), pairs)
        for value in self.named.values():
            value.grad = None
        figures[0].backward()
        # Words and boxes take turns, so what one of them needs has no gradient in the other's step.
        for value in self.named.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        torch.nn.utils.clip_grad_norm_(list(self.named.values()), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in self.named.values()], 1 - decay)
        self.step += 1
        return figures.detach()

    def save(self, folder: Path) -> None:
        """Writes the mean weights (`detector.safetensors`) and what a resume needs (`state.safetensors`)."""
        state = {"step": torch.tensor(self.step)}
        state |= {f"weight.{name}": value.detach() for name, value in self.named.items()}
        state |= {f"mean.{name}": value for name, value in self.mean.items()}
        for number, optimiser in enumerate(self.optimisers):
            for index, entry in optimiser.state_dict()["state"].items():
                state |= {f"optimiser.{number}.{index}.{key}": value for key, value in entry.items()}
        for name, tensors in (("state", state), ("detector", self.mean)):
            partial = folder / f"{name}.safetensors.partial"
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial)
            partial.rename(folder / f"{name}.safetensors")

    @torch.no_grad()
    def resume(self, folder: Path) -> None:
        """Loads what `save` wrote, if there is something."""
        path = folder / "state.safetensors"
        if not path.exists():
            return
        state = load_file(path)
        for name, parameter in self.named.items():
            parameter.copy_(state[f"weight.{name}"])
            self.mean[name].copy_(state[f"mean.{name}"])
        for number, optimiser in enumerate(self.optimisers):
            entries: dict[int, dict[str, Tensor]] = {}
            for name, value in state.items():
                if name.startswith(f"optimiser.{number}."):
                    _, _, index, key = name.split(".")
                    entries.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": entries, "param_groups": groups})
        self.step = int(state["step"])


def train(options: argparse.Namespace) -> None:
    """The whole run."""
    begun = time.monotonic()
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    training = DetectorTraining(options.start, options.seed, device, options.rate)
    training.resume(options.out)
    batches = CaptionedBatches(options.seed, SIDES, options.pictures, options.captions, options.pool, options.fresh)
    stream = DataLoader(
        Subset(batches, range(training.step, options.steps)),
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=3 if options.workers else None,
        # CUDA does not survive a fork.
        multiprocessing_context="forkserver" if options.workers and device.type == "cuda" else None,
    )
    since, window = time.monotonic(), []
    for pairs in stream:
        minutes = (time.monotonic() - begun) / 60
        done = max(training.step / options.steps, minutes / options.finish_in)
        window.append(training.update(pairs.to(device), learning_rate(training.step, done, options.rate)))
        stop = minutes > options.finish_in
        if training.step % options.every == 0 or stop:
            values = dict(zip(FIGURES, torch.stack(window).mean(dim=0).tolist(), strict=True))
            values["seconds"] = (time.monotonic() - since) / len(window)
            if not math.isfinite(values["loss"]):
                raise SystemExit(f"step {training.step}: the loss is {values['loss']}; resume with a smaller --rate")
            report(options.out / "curve.jsonl", training.step, values)
            since, window = time.monotonic(), []
        if training.step % 1000 == 0:
            training.save(options.out)
        if stop:
            break
    training.save(options.out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=Path("models/snow-tiny/checkpoint"), help="the tracker")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--finish-in", type=float, default=math.inf, metavar="MINUTES")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--pictures", type=int, default=48, help="pictures of a step")
    parser.add_argument("--captions", type=int, default=3, help="captions of a picture")
    parser.add_argument("--fresh", type=int, default=2, help="new clips of a step")
    parser.add_argument("--pool", type=int, default=240, help="clips that each worker keeps, 1.6 MB each")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--every", type=int, default=50, help="steps between lines of the curve")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)


if __name__ == "__main__":
    main()
