"""How well a tracker does while it learns, on clips that are neither trained on nor held out.

The clips are of the settings of the held-out set with seeds of their own, so that a choice made by these figures leaves
those of the held-out set honest. Masks are the rollout's, on the training device and in its precision: a guide, where
`evaluate` measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .clips import SEEDS, make_clip
from .heldout import SETS, box_of, fair_objects
from .learner import made_ahead
from .rollout import Prediction, Prompt, Tracker, roll_out

FRAMES = 24
# Objects that are rolled out together.
OBJECTS_AT_ONCE = 24


@dataclass
class Example:
    """A clip: `frames` u8 `[t, side, side, 3]`, `truth` bool `[objects, t, side, side]` of the objects that are fair to
    ask for, `boxes` f32 `[objects, 4]` in pixels around them on the first frame.
    """

    frames: Tensor
    truth: Tensor
    boxes: Tensor


class Examples(Dataset):
    """Number of a clip -> `Example`, without an object if none is fair to ask for."""

    def __init__(self, count: int):
        self.count = count
        self.settings = replace(SETS["held-out"], frames=FRAMES)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Example:
        clip = make_clip(SEEDS["calibration"][0] + number, self.settings)
        inside = [clip.ids == o for o in fair_objects(clip)]
        boxes = [box_of(truth[0]) for truth in inside]
        truth = torch.stack([torch.from_numpy(mask) for mask in inside]) if inside else torch.zeros(0)
        return Example(torch.from_numpy(clip.frames), truth, torch.tensor(boxes, dtype=torch.float32))


class Validation:
    """`count` clips, made by worker processes meanwhile and kept on a device once they are asked for."""

    def __init__(self, count: int, workers: int, device: torch.device):
        self.device = device
        ahead = -(-count // max(workers, 1))
        self.coming: Iterator | None = iter(made_ahead(Examples(count), workers, ahead, device))
        self.groups: list[list[Example]] = []

    def _collect(self) -> None:
        room = 0
        for example in self.coming or ():
            objects = len(example.truth)
            if not objects:
                continue
            if objects > room:
                self.groups.append([])
                room = OBJECTS_AT_ONCE
            room -= objects
            parts = (example.frames, example.truth, example.boxes)
            self.groups[-1].append(Example(*(part.to(self.device) for part in parts)))
        self.coming = None

    @torch.no_grad()
    def figures(self, trackers: dict[int, Tracker]) -> dict[str, float]:
        """Mean J and the share of objects with a mean J over 0.7 for each side of `trackers`, first frame excluded."""
        self._collect()
        figures = {}
        for side, tracker in trackers.items():
            js = torch.cat([self._regions(tracker, group) for group in self.groups])
            figures |= {f"j_{side}": js.mean().item(), f"over_0.7_{side}": (js > 0.7).float().mean().item()}
        return figures

    def _regions(self, tracker: Tracker, group: list[Example]) -> Tensor:
        """Mean J of every object of a group, `[objects]`."""
        images = torch.stack([_resized(example.frames, tracker.side) for example in group])
        counts = torch.tensor([len(example.truth) for example in group], device=self.device)
        clip_of = torch.arange(len(group), device=self.device).repeat_interleave(counts)
        truth = torch.cat([example.truth for example in group])
        boxes = torch.cat([example.boxes for example in group]) * (tracker.side / truth.shape[-1])
        labels = torch.tensor([[2, 3]], device=self.device).expand(len(boxes), -1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=tracker.rounded):
            predictions = roll_out(tracker, images, clip_of, Prompt(boxes.view(-1, 2, 2), labels))
        return torch.stack([region(p, truth[:, t]) for t, p in enumerate(predictions)][1:]).mean(dim=0)


def _resized(frames: Tensor, side: int) -> Tensor:
    """Frames u8 `[t, h, w, 3]` at another side."""
    images = frames.permute(0, 3, 1, 2).float()
    images = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def region(prediction: Prediction, truth: Tensor) -> Tensor:
    """IoU `[N]` of the masks that the tracker shows and `truth` bool `[N, side, side]`; 1 where both are empty."""
    logits = F.interpolate(prediction.mask()[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    shown = (logits > 0) & (prediction.score > 0).unsqueeze(-1)
    union = (shown | truth).flatten(1).sum(dim=1)
    return torch.where(union > 0, (shown & truth).flatten(1).sum(dim=1) / union.clamp(min=1), 1.0)
