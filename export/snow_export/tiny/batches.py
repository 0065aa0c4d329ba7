"""What a training step sees: clips and prompts as a function of the step and the run's seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .clips import SEEDS, make_clip, varied
from .rollout import Prompt


@dataclass(frozen=True)
class Phase:
    """A stretch of training, until step `until`.

    Each step makes `clips` clips of `made` frames and cuts them into windows of `frames`; a window is prompted on its
    first frame. Every `large_every`-th step is at 336 px with a third of the clips, the others at 224 px.
    """

    until: int
    clips: int
    made: int
    frames: int
    objects: int
    large_every: int = 0

    def side(self, step: int) -> int:
        """Pixels of a step's frames."""
        return 336 if self.large_every and step % self.large_every == 0 else 224


# Single frames first: a tracker that cannot segment has nothing to remember.
SCHEDULE = (
    Phase(2000, 16, 4, 1, 3),
    Phase(3200, 16, 9, 3, 3),
    Phase(4600, 30, 8, 8, 4, large_every=4),
    Phase(5100, 16, 16, 16, 4, large_every=4),
)

MASK = "mask"
KINDS = ("box", "box", "box", "box", "point", "points", MASK)


def phase_at(step: int) -> Phase | None:
    """The phase that a step belongs to; None after the last."""
    return next((phase for phase in SCHEDULE if step < phase.until), None)


@dataclass
class Batch:
    """`images` u8 `[windows, frames, side, side, 3]`, `ids` u8 `[windows, frames, side, side]`; object `n` is `objects[n]`
    of window `window_of[n]`.
    """

    images: Tensor
    ids: Tensor
    window_of: Tensor
    objects: Tensor
    coords: Tensor
    labels: Tensor
    by_mask: bool

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in vars(self).items()}
        return Batch(**moved)

    def prompt(self) -> Prompt:
        """The prompt of every object, on the first frame of its window."""
        masks = (self.ids[self.window_of, 0] == self.objects.view(-1, 1, 1)).float() if self.by_mask else None
        return Prompt(self.coords, self.labels, masks)

    def truth(self) -> Tensor:
        """Where each object is seen, bool `[objects, frames, side, side]`."""
        return self.ids[self.window_of] == self.objects.view(-1, 1, 1, 1)


def prompt_of(random: np.random.Generator, inside: np.ndarray, kind: str, side: int) -> tuple[np.ndarray, list[int]]:
    """A prompt for an object that covers `inside` (bool `[side, side]`): points `[p, 2]` in pixels, and their labels."""
    rows, columns = np.nonzero(inside)
    if kind == MASK:
        return np.zeros((1, 2)), [-1]
    if kind == "box":
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        jitter = random.normal(0, 0.03, 4) * np.array([right - left, bottom - top] * 2)
        return (np.array([left, top, right, bottom]) + jitter).clip(0, side).reshape(2, 2), [2, 3]
    pick = random.integers(len(rows), size=2)
    points, labels = [(columns[pick[0]], rows[pick[0]])], [1]
    if kind == "points":
        away_rows, away_columns = np.nonzero(~inside)
        if not len(away_rows):
            away_rows, away_columns = rows, columns
        away = random.integers(len(away_rows))
        points += [(columns[pick[1]], rows[pick[1]]), (away_columns[away], away_rows[away])]
        labels += [1, 0 if not inside[away_rows[away], away_columns[away]] else 1]
    return np.array(points, np.float64), labels


class Steps(Dataset):
    """Step -> `Batch`, or None when nothing is visible; a worker process makes whole batches."""

    def __init__(self, seed: int, shrink: int = 1):
        self.seed, self.shrink = seed, shrink

    def __len__(self) -> int:
        return SCHEDULE[-1].until

    def __getitem__(self, step: int) -> Batch | None:
        phase = phase_at(step)
        random = np.random.default_rng((self.seed, step))
        side = phase.side(step)
        count = max(1, phase.clips // (3 if side > 224 else 1) // self.shrink)
        images, ids = [], []
        for _ in range(count):
            seed = int(random.integers(SEEDS["train"][0], SEEDS["train"][1] + 1))
            clip = make_clip(seed, varied(random, side, phase.made))
            # Shown backwards, a clip is as good as another one.
            order = slice(None, None, -1) if random.random() < 0.5 else slice(None)
            windows = phase.made // phase.frames
            images.append(clip.frames[order].reshape(windows, phase.frames, side, side, 3))
            ids.append(clip.ids[order].reshape(windows, phase.frames, side, side))
        images, ids = np.concatenate(images), np.concatenate(ids)
        kind = str(random.choice(KINDS))
        window_of, objects, coords, labels = [], [], [], []
        for window in range(len(ids)):
            values, counts = np.unique(ids[window, 0], return_counts=True)
            found = [int(v) for v, c in zip(values, counts, strict=True) if v > 0 and c * 840 >= side * side]
            random.shuffle(found)
            for value in found[: phase.objects]:
                points, marks = prompt_of(random, ids[window, 0] == value, kind, side)
                window_of.append(window)
                objects.append(value)
                coords.append(points)
                labels.append(marks)
        if not objects:
            return None
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(ids),
            torch.tensor(window_of),
            torch.tensor(objects),
            torch.tensor(np.array(coords), dtype=torch.float32),
            torch.tensor(labels),
            kind == MASK,
        )
