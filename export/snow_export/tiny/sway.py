"""How the parts of a cut-out thing move: legs swing, a head or a tail nods, a back bends, skin wobbles.

Places are in the thing's own frame: -1 to 1 across and down the box around it. A warp says where in the picture of the
thing to look for what is seen at a place.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Sway:
    """The motion of one thing's parts; `deform` 0 keeps it stiff."""

    def __init__(self, random: np.random.Generator, deform: float):
        self.pace = float(random.uniform(0.12, 0.6))
        self.legs: list[tuple[float, float, float, float, float]] = []
        self.nods: list[tuple[float, float, float, float]] = []
        moving = deform if random.random() < 0.75 else 0.0
        if moving and random.random() < 0.6:
            count, hip = int(random.integers(2, 5)), float(random.uniform(-0.2, 0.4))
            for leg in range(count):
                middle = -0.85 + 1.7 * (leg + 0.5) / count
                swing = moving * float(random.uniform(0.15, 0.6))
                self.legs.append((middle, 1.0 / count, hip, swing, float(random.uniform(0, 6.3))))
        if moving and random.random() < 0.6:
            for side in (-1.0, 1.0):
                size = moving * float(random.normal(0, 0.3))
                self.nods.append((side, float(random.uniform(0.1, 0.6)), size, float(random.uniform(0, 6.3))))
        self.bend = moving * float(random.normal(0, 0.08))
        self.order, self.phase = float(random.uniform(1.0, 3.0)), float(random.uniform(0, 6.3))
        self.fields = torch.from_numpy(random.normal(0, 0.045 * moving, (2, 2, 4, 4)).astype(np.float32))
        self.rates = random.uniform(0.05, 0.4, 2).tolist()

    def warp(self, u: Tensor, v: Tensor, time: float) -> tuple[Tensor, Tensor]:
        """Where to look for what is seen at places f32 `[h, w]`."""
        shift = torch.zeros_like(u)
        for middle, width, hip, swing, phase in self.legs:
            size = swing * float(np.sin(2 * self.pace * time + phase))
            shift = shift + size * torch.exp(-(((u - middle) / width) ** 2)) * (v - hip).clamp(min=0)
        lift = self.bend * float(np.sin(self.pace * time + self.phase)) * torch.sin(self.order * u)
        for side, start, size, phase in self.nods:
            lift = lift + size * float(np.sin(0.7 * self.pace * time + phase)) * (side * u - start).clamp(min=0)
        weights = [float(np.sin(rate * time + self.phase + n)) for n, rate in enumerate(self.rates)]
        if self.fields.abs().max() > 0:
            field = sum(weight * part for weight, part in zip(weights, self.fields, strict=True))
            at = torch.stack((u, v), dim=-1).unsqueeze(0)
            wobble = F.grid_sample(field.unsqueeze(0), at, padding_mode="border", align_corners=True)[0]
            shift, lift = shift + wobble[0], lift + wobble[1]
        return u + shift, v + lift
