"""The surroundings in a clip made of photographs: a photograph seen by a moving camera, nearer below than above."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import Camera
from .textures import smooth_noise


def as_tensor(image: np.ndarray) -> Tensor:
    """u8 `[h, w, c]` as f32 `[c, h, w]`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def blurred(image: Tensor, size: int) -> Tensor:
    """`[c, h, w]` through a box of `size` pixels twice; the edge stays as bright as it is."""
    size |= 1
    for _ in range(2):
        image = F.avg_pool2d(image.unsqueeze(0), size, 1, size // 2, count_include_pad=False)[0]
    return image


def coarse_places(top: int, bottom: int, left: int, right: int, side: int) -> tuple[Tensor, Tensor]:
    """Every sixth row or so of a window of pixels, and every sixth column, in shares of the side from the centre: what
    is warped smoothly need not be worked out at every pixel.
    """
    down = torch.linspace((top + 0.5) / side - 0.5, (bottom - 0.5) / side - 0.5, max(2, (bottom - top) // 6))
    across = torch.linspace((left + 0.5) / side - 0.5, (right - 0.5) / side - 0.5, max(2, (right - left) // 6))
    return tuple(torch.meshgrid(down, across, indexing="ij"))


def fine(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values `[c, h, w]` of coarse places at every pixel."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=True)[0]


class ShakyCamera:
    """A camera that wanders and shakes. Places are shares of the side, times are frames."""

    def __init__(self, random: np.random.Generator, speed: float, shake: float, frames: int):
        self.path = Camera(random, speed)
        jolts = random.normal(0, shake, (frames + 2, 2))
        self.jolts = (jolts[:-2] + 2 * jolts[1:-1] + jolts[2:]) / 4

    def at(self, time: int) -> tuple[float, float, float, float]:
        """`(scale, dx, dy, angle)` of the image relative to the scene, about the centre."""
        zoom, dx, dy, roll = self.path.at(time)
        return zoom, dx + float(self.jolts[time, 0]), dy + float(self.jolts[time, 1]), roll


class Scene:
    """A photograph's `crop` (left, top, right, bottom, in shares of it) fills the frame while the camera is at rest."""

    def __init__(
        self,
        random: np.random.Generator,
        photograph: np.ndarray,
        crop: tuple[float, float, float, float],
        side: int,
        mirrored: bool,
    ):
        image = as_tensor(photograph)
        if random.random() < 0.25:
            image = blurred(image, int(random.integers(3, max(4, max(image.shape) // 90) + 3)))
        left, top, right, bottom = crop
        self.image, self.side = image, side
        self.middle = (left + right - 1, top + bottom - 1)
        self.span = ((left - right) if mirrored else (right - left), bottom - top)
        # Ground is nearer below; the rest has some depth of its own.
        down = np.linspace(-0.5, 0.5, 16, dtype=np.float32)[:, None]
        depth = down * random.uniform(0, 1.2) + random.uniform(0, 0.4) * smooth_noise(random, 16, 3)
        self.depth = torch.from_numpy(depth.astype(np.float32))[None, None]
        self.parallax = float(random.uniform(0, 0.6))
        self.light = None
        if random.random() < 0.4:
            cells = int(random.integers(2, 14))
            light = 1 + random.uniform(0.1, 0.45) * smooth_noise(random, 64, cells)
            self.light = torch.from_numpy(light.astype(np.float32))[None, None]

    def seen(self, view: tuple[float, float, float, float]) -> tuple[Tensor, Tensor]:
        """What a camera sees, f32 `[3, side, side]` in 0..255, and the light on it, `[1, side, side]`."""
        zoom, dx, dy, roll = view
        y, x = coarse_places(0, self.side, 0, self.side, self.side)
        x, y = x - dx, y - dy
        cos, sin = float(np.cos(roll)) / zoom, float(np.sin(roll)) / zoom
        near = self.parallax * F.interpolate(self.depth, x.shape, mode="bilinear", align_corners=True)[0, 0]
        x, y = cos * x + sin * y - near * dx, cos * y - sin * x - near * dy
        grid = torch.stack((self.middle[0] + 2 * x * self.span[0], self.middle[1] + 2 * y * self.span[1]))
        grid = fine(grid, (self.side, self.side)).permute(1, 2, 0)
        image = F.grid_sample(self.image[None], grid[None], padding_mode="reflection", align_corners=False)[0]
        if self.light is None:
            return image, torch.ones(1, self.side, self.side)
        at = torch.stack((2 * x, 2 * y), dim=-1)[None]
        light = F.grid_sample(self.light, at, padding_mode="reflection", align_corners=False)[0]
        light = fine(light, (self.side, self.side))
        return image * light, light
