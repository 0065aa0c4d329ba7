"""What a training step sees, as a function of the run's seed and the step.

Clips are made by worker processes and kept in a pool on the training device. A step cuts windows out of the pool's
clips there: other times, directions, crops, shapes and colours each time, so that a clip that took a second to make is
worth several.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .clips import LOOKALIKES, SEEDS, Settings, make_clip, varied
from .photo_clips import make_photo_clip, varied_photo
from .photo_pack import DEFAULT, Pack, load_pack
from .rollout import Prompt

# Pixels and frames of the clips that are made; windows are resampled from them.
MADE_SIDE, MADE_FRAMES = 448, 32
# More objects than any clip has; the last number is a visitor's.
MOST_OBJECTS = 8
# Of windows, those that an object of another window comes to; of these, those whose visitor is of the same clip.
VISITED, TWINS = 0.5, 0.4
# Added to the luck, 0 to 1, of objects that are hidden on some frame of a window, and again if they are seen later:
# there is most to learn from them.
HIDING = 0.4
# A prompted object covers at least this share of the frame.
LEAST_AREA = 1 / 840

BOX, POINT, POINTS, MASK = "box", "point", "points", "mask"


@dataclass(frozen=True)
class View:
    """What one step sees: `windows` of `frames` frames at `side` px and `objects` objects among them.

    `fresh` new clips enter the pool before the step. It draws one of `kinds` for all its prompts. `plain` windows are
    clips as they were made, mirrored at most.
    """

    frames: int
    side: int
    windows: int
    objects: int
    fresh: int
    kinds: tuple[str, ...]
    plain: bool = False


@dataclass(frozen=True)
class Phase:
    """A stretch of training, until step `until`, whose steps go round a `cycle` of views."""

    until: int
    cycle: tuple[View, ...]


_STILL_KINDS = (BOX, BOX, BOX, BOX, POINT, POINT, POINTS, MASK)
_MOVING_KINDS = (BOX, BOX, BOX, POINT, MASK)
STILL_224, STILL_336 = View(1, 224, 192, 384, 1, _STILL_KINDS), View(1, 336, 80, 160, 1, _STILL_KINDS)
SHORT_224, SHORT_336 = View(8, 224, 24, 64, 1, _MOVING_KINDS), View(8, 336, 10, 26, 1, _MOVING_KINDS)
LONG_224, LONG_336 = View(16, 224, 16, 40, 2, _MOVING_KINDS), View(16, 336, 7, 16, 2, _MOVING_KINDS)
STILL_448, LONG_448 = View(1, 448, 64, 128, 1, _STILL_KINDS), View(16, 448, 5, 12, 1, _MOVING_KINDS)
# Windows cost a GPU many small kernels, whatever they hold, so these hold what its memory takes.
_MEMORY_KINDS = (BOX, BOX, BOX, BOX, POINT, MASK)
FULL_224, FULL_336 = View(20, 224, 40, 96, 2, _MEMORY_KINDS), View(20, 336, 18, 44, 2, _MEMORY_KINDS)
FULL_448 = View(16, 448, 10, 26, 2, _MEMORY_KINDS)
PLAIN_224, PLAIN_336 = View(24, 224, 32, 80, 2, _MEMORY_KINDS, True), View(24, 336, 15, 36, 2, _MEMORY_KINDS, True)
PLAIN_448 = View(24, 448, 7, 17, 2, _MEMORY_KINDS, True)
STILL_560, PLAIN_560 = View(1, 560, 40, 80, 1, _STILL_KINDS), View(24, 560, 4, 11, 1, _MEMORY_KINDS, True)

# Single frames first: a tracker that cannot segment has nothing to remember. They stay in the cycle, because masks get
# better with the number of pictures, and a rollout sees few.
SCHEDULES = {
    "whole": (
        Phase(5000, (STILL_224, STILL_224, STILL_336)),
        Phase(11000, (STILL_336, SHORT_224, STILL_224, SHORT_336)),
        Phase(18000, (STILL_336, LONG_224, STILL_224, LONG_336)),
    ),
    # For weights that segment and track already (`--start`).
    "continue": (
        Phase(4000, (STILL_336, SHORT_224, STILL_224, SHORT_336)),
        Phase(9800, (STILL_336, LONG_224, STILL_224, LONG_336)),
    ),
    # For weights that know 224 and 336 px: another resolution, without losing those.
    "sharpen": (Phase(6000, (STILL_448, LONG_448, STILL_336, LONG_448, STILL_448, LONG_336, STILL_224, LONG_224)),),
    # For weights that segment well at all sides: what a memory is for.
    "remember": (Phase(8000, (FULL_336, FULL_448, STILL_448, FULL_336, FULL_448, STILL_336, FULL_224)),),
    # For the end of a training: mostly clips as they are, which are easier than what is made of them to learn from.
    "settle": (
        Phase(8000, (PLAIN_336, PLAIN_448, FULL_448, PLAIN_448, STILL_448, PLAIN_336, FULL_336, PLAIN_448, PLAIN_224)),
    ),
    # As "settle", for weights that know 560 px from afar only.
    "enlarge": (
        Phase(8000, (STILL_560, PLAIN_560, PLAIN_336, PLAIN_448, PLAIN_560, FULL_336, PLAIN_448, PLAIN_560, PLAIN_224)),
    ),
    # For weights that know drawn clips only: single frames for the backbone, and windows at the sides that matter most.
    "photographs": (
        Phase(8000, (STILL_336, FULL_336, STILL_448, PLAIN_448, STILL_336, PLAIN_336, STILL_224, FULL_448, PLAIN_224)),
    ),
}
Schedule = tuple[Phase, ...]


def view_at(schedule: Schedule, step: int) -> View:
    """What a step sees; steps after the last see what the last phase does."""
    phase = next((phase for phase in schedule if step < phase.until), schedule[-1])
    return phase.cycle[step % len(phase.cycle)]


def clips_before(schedule: Schedule, step: int) -> int:
    """How many clips a run has used when a step begins: enough for a varied batch at its start, then what its views
    ask for.
    """
    return math.ceil(schedule[0].cycle[0].windows / 3) + sum(view_at(schedule, s).fresh for s in range(step))


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; a GPU takes it in turn, without the wait of an ordinary copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@cache
def _cuttings(folder: Path) -> Pack:
    """What a worker process makes photo clips of, read once."""
    return load_pack(folder, held_out=False)


class Clips(Dataset):
    """Number of a clip -> frames u8 `[t, side, side, 3]` and ids u8 `[t, side, side]`, rendered in a worker process.

    A share of `usual` clips has the settings of the held-out ones, and one of `lookalikes` those of `LOOKALIKES`; all
    others have any. A share of `photographed` ones is made of the photographs in the folder `pack` instead.
    """

    def __init__(
        self,
        seed: int,
        rank: int = 0,
        usual: float = 0.0,
        lookalikes: float = 0.0,
        photographed: float = 0.0,
        pack: Path = DEFAULT,
    ):
        self.seed, self.rank, self.usual, self.lookalikes = seed, rank, usual, lookalikes
        self.photographed, self.pack = photographed, pack

    def __len__(self) -> int:
        return 1 << 31

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng((self.seed, self.rank, number))
        seed = int(random.integers(SEEDS["train"][0], SEEDS["train"][1] + 1))
        # Of another stream, so that a share of photographs moves nothing of the other clips.
        if np.random.default_rng((self.seed, self.rank, number, 1)).random() < self.photographed:
            clip = make_photo_clip(seed, _cuttings(self.pack), varied_photo(random, MADE_SIDE, MADE_FRAMES))
            return torch.from_numpy(clip.frames), torch.from_numpy(clip.ids)
        settings = varied(random, MADE_SIDE, MADE_FRAMES)
        luck = random.random()
        if luck < self.usual:
            settings = Settings(side=MADE_SIDE, frames=MADE_FRAMES)
        elif luck < self.usual + self.lookalikes:
            settings = replace(LOOKALIKES, side=MADE_SIDE, frames=MADE_FRAMES)
        clip = make_clip(seed, settings)
        return torch.from_numpy(clip.frames), torch.from_numpy(clip.ids)


class Pool:
    """The latest `size` clips on a device; clip `n` stands in slot `n % size`."""

    def __init__(self, size: int, device: torch.device, frames: int = MADE_FRAMES, side: int = MADE_SIDE):
        shape = (size, frames, side, side)
        self.frames = torch.zeros((*shape, 3), dtype=torch.uint8, device=device)
        self.ids = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.size, self.count = size, 0

    def add(self, number: int, frames: Tensor, ids: Tensor) -> None:
        """Takes in clip `number`; clips come in order, the first may be any."""
        self.frames[number % self.size] = frames.to(self.frames.device, non_blocking=True)
        self.ids[number % self.size] = ids.to(self.ids.device, non_blocking=True)
        self.count = min(self.count + 1, self.size)


@dataclass
class Batch:
    """A step's input.

    `images` u8 `[windows, frames, side, side, 3]`; `truth` bool `[objects, frames, side, side]`, where each object is
    seen; `window_of` i64 `[objects]`; `weight` f32 `[objects]`, 0 for those that only fill the batch up; `coords` and
    `labels`, the prompts on each window's first frame. A batch `by_mask` takes its prompts from `truth` instead.
    """

    images: Tensor
    truth: Tensor
    window_of: Tensor
    weight: Tensor
    coords: Tensor
    labels: Tensor
    by_mask: bool

    def prompt(self) -> Prompt:
        """The prompt of every object."""
        return Prompt(self.coords, self.labels, self.truth[:, 0].float() if self.by_mask else None)


def windows(
    pool: Pool,
    frames: int,
    side: int,
    count: int,
    dice: np.random.Generator,
    slots: np.ndarray | None = None,
    plain: bool = False,
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Windows cut from the pool and, unless they are `plain`, moved about: images f32 `[b, t, 3, side, side]`, ids u8
    `[b, t, side, side]`, and the slots `[b]` that they come from, any if none are given.
    """
    device = pool.frames.device
    made = pool.frames.shape[1]
    slots = dice.integers(pool.count, size=count) if slots is None else slots
    stride = dice.integers(1, (made - 1) // max(frames - 1, 1) + 1, size=count) if frames > 1 else np.ones(count)
    stride = np.minimum(stride, 1 if plain else 3).astype(np.int64)
    start = (dice.random(count) * (made - stride * (frames - 1))).astype(np.int64)
    times = start[:, None] + stride[:, None] * np.arange(frames)
    times = np.where((dice.random((count, 1)) < 0.5) | plain, times, times[:, ::-1])
    rows = upload(slots[:, None].repeat(frames, 1), device)
    columns = upload(times, device)
    images = pool.frames[rows, columns].flatten(0, 1).permute(0, 3, 1, 2).float()
    ids = pool.ids[rows, columns].flatten(0, 1).unsqueeze(1).float()

    # A crop of 60 to 100% of each axis (not the same for both: wide videos are squeezed), mirrored or on its side.
    span = dice.uniform(0.65, 1.0, (count, 1)) * np.exp(dice.uniform(-0.3, 0.3, (count, 2)))
    span = np.clip(span, 0.5, 1.0)
    centre = dice.uniform(-1, 1, (count, 2)) * (1 - span)
    flip = np.where(dice.random((count, 2)) < [0.5, 0.15], -1.0, 1.0)
    turned = dice.random(count) < 0.15
    if plain:
        span, centre, turned = np.ones((count, 2)), np.zeros((count, 2)), np.zeros(count, bool)
        flip[:, 1] = 1
    affine = np.zeros((count, 2, 3), np.float32)
    for b in range(count):
        matrix = np.diag(span[b] * flip[b])
        affine[b, :, :2] = matrix[:, ::-1] if turned[b] else matrix
        affine[b, :, 2] = centre[b]
    theta = upload(affine.repeat(frames, 0), device)
    grid = F.affine_grid(theta, [len(theta), 3, side, side], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    ids = F.grid_sample(ids, grid, mode="nearest", align_corners=False)[:, 0].to(torch.uint8)
    return images.unflatten(0, (count, frames)), ids.unflatten(0, (count, frames)), slots


def with_visitors(
    pool: Pool, images: Tensor, ids: Tensor, slots: np.ndarray, dice: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Windows with an object of another window of the pool in front of `VISITED` of them, as object `MOST_OBJECTS`.

    It comes as it moves and is hidden there. `TWINS` of them come from the window's own clip, and look like one of its
    objects: more that crosses and is mistaken than a clip was made with.
    """
    count, frames, side = len(images), images.shape[1], images.shape[3]
    others = dice.integers(pool.count, size=count)
    theirs = np.where(dice.random(count) < TWINS, slots, others)
    guests, guest_ids, _ = windows(pool, frames, side, count, dice, theirs)
    there = torch.stack([(guest_ids == o).flatten(1).any(dim=1) for o in range(1, MOST_OBJECTS)], dim=1)
    luck = upload(dice.random((count, MOST_OBJECTS - 1)), images.device)
    visitor = 1 + (luck + there).argmax(dim=1)
    comes = upload(dice.random(count) < VISITED, images.device)
    inside = (guest_ids == visitor.view(-1, 1, 1, 1)) & comes.view(-1, 1, 1, 1)
    return torch.where(inside.unsqueeze(2), guests, images), torch.where(inside, MOST_OBJECTS, ids)


def _recoloured(images: Tensor, dice: np.random.Generator) -> Tensor:
    """Other colours for each window, `[b, t, 3, side, side]` to u8 `[b, t, side, side, 3]`."""
    count = len(images)
    mix = np.zeros((count, 3, 3), np.float32)
    for b in range(count):
        order = dice.permutation(3) if dice.random() < 0.3 else np.arange(3)
        mix[b] = np.eye(3)[order] * dice.uniform(0.8, 1.2, (3, 1))
        grey = dice.uniform(0, 1) if dice.random() < 0.25 else 0.0
        mix[b] = (1 - grey) * mix[b] + grey * np.full((3, 3), 1 / 3)
    shift = dice.uniform(-20, 20, (count, 1, 3, 1, 1)).astype(np.float32)
    mix, shift = upload(mix, images.device), upload(shift, images.device)
    return _as_bytes(torch.einsum("bij,btjhw->btihw", mix, images) + shift)


def _as_bytes(images: Tensor) -> Tensor:
    """f32 `[b, t, 3, side, side]` to u8 `[b, t, side, side, 3]`."""
    return images.clamp(0, 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()


def _pixels(mask: Tensor, share: Tensor) -> Tensor:
    """One set pixel of each mask bool `[n, h, w]` as `(x, y)` f32 `[n, 2]`, the one at `share` of the way through them;
    the first pixel of an empty mask.
    """
    order = mask.flatten(1).int().cumsum(dim=1)
    wanted = (share * order[:, -1]).floor().long().clamp(min=0) + 1
    index = torch.searchsorted(order, wanted.unsqueeze(1)).squeeze(1).clamp(max=order.shape[1] - 1)
    return torch.stack((index % mask.shape[2], index // mask.shape[2]), dim=1).float()


def boxes_of(masks: Tensor) -> Tensor:
    """Corners f32 `[..., 4]` in pixels around masks bool `[..., h, w]`, right and bottom exclusive; an empty mask gives
    the whole picture.
    """
    edges = []
    for axis in (-2, -1):
        any_set = masks.any(dim=axis).int()
        edges += [any_set.argmax(dim=-1), any_set.shape[-1] - any_set.flip(-1).argmax(dim=-1)]
    left, right, top, bottom = edges
    return torch.stack((left, top, right, bottom), dim=-1).float()


def _boxes(mask: Tensor, jitter: Tensor) -> Tensor:
    """Corners `[n, 2, 2]` of the box around each mask bool `[n, h, w]`, moved by `jitter` `[n, 2, 2]` of its size."""
    box = boxes_of(mask).unflatten(1, (2, 2))
    return (box + jitter * (box[:, 1:] - box[:, :1])).clamp(0, mask.shape[1])


def make_batch(pool: Pool, view: View, step: int, seed: int, rank: int = 0, shrink: int = 1) -> tuple[Batch, str]:
    """The batch of a step and the kind of its prompts; `shrink` divides windows and objects, for small machines."""
    device = pool.frames.device
    dice = np.random.default_rng((seed, rank, step, 1))
    count, wanted = max(1, round(view.windows / shrink)), max(2, round(view.objects / shrink))
    images, ids, slots = windows(pool, view.frames, view.side, count, dice, plain=view.plain)
    if view.plain:
        images = _as_bytes(images)
    else:
        images, ids = with_visitors(pool, images, ids, slots, dice)
        images = _recoloured(images, dice)

    areas = torch.stack([(ids == o).flatten(2).sum(dim=2) for o in range(1, MOST_OBJECTS + 1)], dim=2)
    fair = areas[:, 0].float() >= LEAST_AREA * view.side**2
    hidden = (areas == 0) & fair.unsqueeze(1)
    returns = ((areas > 0) & (hidden.int().cumsum(dim=1) > 0)).any(dim=1)
    luck = upload(dice.random((count, MOST_OBJECTS)), device)
    luck = luck + HIDING * hidden.any(dim=1) + HIDING * returns + 2 * fair
    chosen = luck.flatten().topk(min(wanted, count * MOST_OBJECTS)).indices
    window_of, objects = chosen // MOST_OBJECTS, chosen % MOST_OBJECTS + 1
    truth = ids[window_of] == objects.view(-1, 1, 1, 1).to(torch.uint8)
    weight = fair.flatten()[chosen].float()

    # The kind is the same on every rank, so that all take the same time.
    kind = str(np.random.default_rng((seed, step, 2)).choice(view.kinds))
    count, first = len(chosen), truth[:, 0]
    luck = upload(dice.random((3, count)).astype(np.float32), device)
    if kind == BOX:
        jitter = upload(dice.normal(0, 0.03, (count, 2, 2)).astype(np.float32), device)
        coords, labels = _boxes(first, jitter), [2, 3]
    elif kind == POINT:
        coords, labels = _pixels(first, luck[0]).unsqueeze(1), [1]
    elif kind == POINTS:
        places = (_pixels(first, luck[0]), _pixels(first, luck[1]), _pixels(~first, luck[2]))
        coords, labels = torch.stack(places, dim=1), [1, 1, 0]
    else:
        coords, labels = torch.zeros(count, 1, 2, device=device), [-1]
    labels = upload(np.array([labels]), device).expand(count, -1).contiguous()
    return Batch(images, truth, window_of, weight, coords, labels, kind == MASK), kind
