"""What a training step of the detector sees: pictures with captions, some of them true, as a function of seed and step.

Worker processes make short clips, keep the latest, and cut whole batches out of them, so that the training process
only computes. Colours stay what they are called.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import CLIPTokenizer

from .batches import MOST_OBJECTS, Pool, boxes_of, windows
from .captions import VISUAL, Caption, Looks, draw
from .clips import SEEDS, Settings, make_clip
from .detector_model import TEXT_TOKENS, tokenizer

MADE_SIDE, MADE_FRAMES = 448, 4
# What covers less of a picture cannot be made out.
LEAST_SEEN = 1 / 400
# Of the captions.
ABSENT_SHARE = 0.45


def captioned(random: np.random.Generator, side: int, frames: int) -> Settings:
    """Settings of a captioned clip; few frames run through as much motion as many would by running faster."""
    return Settings(
        side=side,
        frames=frames,
        objects=(1, 6),
        radius=(0.09, float(random.uniform(0.2, 0.32))),
        speed=0.04 if frames < 8 else 0.008,
        lookalikes=0.5,
        occluders=0.0,
        meeting=0.0,
        crossing=0.2,
        clutter=0.0,
        deform=0.6,
        noise=float(random.uniform(2, 10)),
        captioned=True,
        # All or nothing: beside a photograph, nothing can be asked for by its colour.
        photographed=0.6 if random.random() < 0.25 else 0.0,
    )


class CaptionedPool:
    """The latest `size` captioned clips, and what is in them."""

    def __init__(self, size: int):
        self.pool = Pool(size, torch.device("cpu"), MADE_FRAMES, MADE_SIDE)
        self.looks: list[list[Looks]] = [[] for _ in range(size)]
        self.made = 0

    def add(self, random: np.random.Generator) -> None:
        """Makes one more clip."""
        seed = int(random.integers(SEEDS["train"][0], SEEDS["train"][1] + 1))
        clip = make_clip(seed, captioned(random, MADE_SIDE, MADE_FRAMES))
        self.pool.add(self.made, torch.from_numpy(clip.frames), torch.from_numpy(clip.ids))
        self.looks[self.made % self.pool.size] = clip.looks or []
        self.made += 1


@dataclass
class Pairs:
    """Pictures, and captions asked of them, with their tokens: i64 and bool `[pairs, longest]`.

    `images` u8 `[b, side, side, 3]`; `ids` u8 `[b, side, side]`; `image_of` i64 `[pairs]`, sorted; `wanted`, for each
    pair the objects that its caption means and that can be made out. Exemplars instead of words: `boxes` f32
    `[pairs, 2, 4]`, centre x, centre y, width and height as shares, and `labels` i64 `[pairs, 2]`, 1 for what is
    meant, 0 for what is not, -10 for none; None where words are asked.
    """

    images: Tensor
    ids: Tensor
    image_of: Tensor
    token_ids: Tensor
    token_mask: Tensor
    captions: list[Caption]
    wanted: list[list[int]]
    boxes: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device) -> "Pairs":
        """The same with all tensors on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in values.items()}
        return Pairs(**moved)


class CaptionedBatches(Dataset):
    """Step -> what it sees. Each worker process has a pool of its own: a batch follows from the seed, the step, the
    number of workers, and the step that the run began or went on with.
    """

    def __init__(self, seed: int, sides: tuple[int, ...], pictures: int, captions: int, pool: int, fresh: int):
        self.seed, self.sides, self.pictures, self.captions = seed, sides, pictures, captions
        self.size, self.fresh = pool, fresh
        self.pool: CaptionedPool | None = None

    def __len__(self) -> int:
        return 1 << 31

    def __getitem__(self, step: int) -> Pairs:
        if self.pool is None:
            self.pool, self.tokenizer = CaptionedPool(self.size), tokenizer()
        random = np.random.default_rng((self.seed, step, 3))
        for _ in range(self.fresh if self.pool.made else max(self.fresh, self.pictures // 3)):
            self.pool.add(random)
        side = self.sides[step % len(self.sides)]
        return make_pairs(self.pool, self.tokenizer, side, self.pictures, self.captions, step, self.seed)


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids i64 and what of them is real, bool, `[texts, longest]`."""
    ids = tokenizer(texts, padding=True, truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
    return ids.input_ids, ids.attention_mask.bool()


def make_pairs(
    pool: CaptionedPool, tokenizer: CLIPTokenizer, side: int, count: int, captions: int, step: int, seed: int
) -> Pairs:
    """`count` pictures of a step with `captions` captions each; every fourth step shows boxes instead of words."""
    dice = np.random.default_rng((seed, step, 4))
    images, ids, slots = windows(pool.pool, 1, side, count, dice)
    gain = torch.from_numpy(dice.uniform(0.9, 1.1, (count, 1, 1, 1)).astype(np.float32))
    images = (images[:, 0] * gain).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    ids = ids[:, 0]
    areas = torch.stack([(ids == o).flatten(1).sum(dim=1) for o in range(1, MOST_OBJECTS + 1)], dim=1).numpy()
    seen = areas >= LEAST_SEEN * side**2
    show = step % 4 == 3
    image_of, asked, wanted, shown = [], [], [], []
    for picture, slot in enumerate(slots):
        looks = pool.looks[slot]
        visible = [o for o in range(len(looks)) if seen[picture, o]]
        for _ in range(captions):
            if show:
                exemplars, caption = _exemplars(dice, looks, visible)
                if not exemplars:
                    continue
                shown.append(exemplars)
            else:
                caption = draw(dice, looks, visible, ABSENT_SHARE)
            image_of.append(picture)
            asked.append(caption)
            wanted.append([o + 1 for o in visible if caption.matches(looks[o])])
    token_ids, token_mask = tokens_of(tokenizer, [caption.text for caption in asked])
    pairs = Pairs(images, ids, torch.tensor(image_of), token_ids, token_mask, asked, wanted)
    if show:
        pairs.boxes, pairs.labels = _boxes_of(ids, image_of, shown, dice)
    return pairs


def _exemplars(
    dice: np.random.Generator, looks: list[Looks], visible: list[int]
) -> tuple[list[tuple[int, int]], Caption]:
    """Objects to show with their labels, and the caption that says the same: all that looks like the first."""
    if not visible:
        return [], Caption(VISUAL)
    first = int(dice.choice(visible))
    caption = Caption(VISUAL, looks[first].shape, looks[first].colour)
    found = [(first + 1, 1)]
    others = [o for o in visible if o != first]
    if others and dice.random() < 0.5:
        second = int(dice.choice(others))
        found.append((second + 1, int(caption.matches(looks[second]))))
    return found, caption


def _boxes_of(
    ids: Tensor, image_of: list[int], shown: list[list[tuple[int, int]]], dice: np.random.Generator
) -> tuple[Tensor, Tensor]:
    side = ids.shape[1]
    labels = np.full((len(shown), 2), -10, np.int64)
    objects = np.ones((len(shown), 2), np.int64)
    for row, exemplars in enumerate(shown):
        for column, (identity, label) in enumerate(exemplars):
            labels[row, column], objects[row, column] = label, identity
    pictures = ids[torch.tensor(image_of)]
    corners = boxes_of(pictures[:, None] == torch.from_numpy(objects)[:, :, None, None].to(torch.uint8))
    corners = corners / side
    jitter = torch.from_numpy(dice.normal(0, 0.02, corners.shape).astype(np.float32))
    size = (corners[..., 2:] - corners[..., :2]).repeat(1, 1, 2)
    corners = (corners + jitter * size).clamp(0, 1)
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) / 2, (high - low).clamp(min=0.01)), dim=-1), torch.from_numpy(labels)
