"""Trains snow-tiny's detector on the backbone of its tracker: `python -m snow_export.tiny.train_detector --out DIR`.

Interrupt it at any time; the same command resumes. The backbone stays as it is, so that the tracker does too.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from .captioned import CaptionedBatches, Pairs
from .detector_loss import loss_of, predict
from .detector_model import detector_at, new_detector, take_over, tokenizer
from .learner import Curve, Learner, add_times, learning_rate, made_ahead, write_tensors
from .model import DETECTOR_SIDES, trained_model

FIGURES = ("loss", "mask_iou", "score_matched", "score_others", "presence_right")
# What is shown takes turns in fours (words, words, words, boxes), so sides take turns in fives.
TURNS = (448, 336, 448, 224, 336)


class DetectorTraining(Learner):
    """A detector that learns, at each side that it is trained at."""

    def __init__(self, start: Path, begin: Path | None, seed: int, device: torch.device, rate: float):
        self.device = device
        model = new_detector(seed, trained_model(start), DETECTOR_SIDES[0], len(tokenizer()))
        if begin is not None:
            take_over(model, begin)
        self.models = {DETECTOR_SIDES[0]: model} | {side: detector_at(model, side) for side in DETECTOR_SIDES[1:]}
        for part in self.models.values():
            part.to(device).train()
        super().__init__(model, rate)

    def gradient(self, pairs: Pairs) -> Tensor:
        """Figures of a batch; its gradient is left in `flat_grad`, 0 where the batch has no use for a parameter: words
        and boxes take turns.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            model = self.models[pairs.images.shape[1]]
            figures = loss_of(model, predict(model, pairs), pairs)
        self.flat_grad.zero_()
        figures[0].backward()
        return figures.detach()

    def save(self, folder: Path) -> None:
        """Writes the mean weights (`detector.safetensors`) and what a resume needs."""
        write_tensors(folder / "detector.safetensors", self.mean)
        self.save_state(folder)


def train(options: argparse.Namespace) -> None:
    """The whole run."""
    begun = time.monotonic()
    device = torch.device(options.device)
    torch.set_float32_matmul_precision("high")
    training = DetectorTraining(options.start, options.begin, options.seed, device, options.rate)
    training.resume(options.out)
    batches = CaptionedBatches(options.seed, TURNS, options.pictures, options.captions, options.pool, options.fresh)
    stream = made_ahead(Subset(batches, range(training.step, options.steps)), options.workers, 3, device)
    curve = Curve(options.out / "curve.jsonl", FIGURES)
    for pairs in stream:
        minutes = (time.monotonic() - begun) / 60
        done = max(training.step / options.steps, minutes / options.finish_in)
        curve.add(training.gradient(pairs.to(device)))
        training.update(learning_rate(training.step, done, options.rate))
        stop = minutes > min(options.minutes, options.finish_in)
        if training.step % options.every == 0 or stop:
            curve.line(training.step)
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
    parser.add_argument("--begin", type=Path, help="published checkpoint whose detector to begin with, not new weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20000)
    add_times(parser)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--pictures", type=int, default=48, help="pictures of a step")
    parser.add_argument("--captions", type=int, default=3, help="captions of a picture")
    parser.add_argument("--fresh", type=int, default=2, help="new clips of a step")
    parser.add_argument("--pool", type=int, default=240, help="clips that each worker keeps, 3.2 MB each")
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--every", type=int, default=50, help="steps between lines of the curve")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train(options)


if __name__ == "__main__":
    main()
