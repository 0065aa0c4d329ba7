"""Coats that have a name: a colour and a pattern that a caption can speak of."""

import colorsys

import numpy as np

from .captions import COLOURS, PATTERNS
from .textures import fractal, smooth_noise

# Name -> ranges of hue (in turns), saturation and value. They keep away from each other: what lies between two names
# has none.
_RANGES = {
    "red": ((-0.02, 0.02), (0.75, 1.0), (0.6, 1.0)),
    "orange": ((0.065, 0.095), (0.8, 1.0), (0.85, 1.0)),
    "yellow": ((0.14, 0.17), (0.7, 1.0), (0.85, 1.0)),
    "green": ((0.27, 0.41), (0.6, 1.0), (0.4, 0.85)),
    "blue": ((0.57, 0.67), (0.65, 1.0), (0.5, 1.0)),
    "purple": ((0.74, 0.79), (0.55, 0.95), (0.4, 0.8)),
    "pink": ((0.88, 0.94), (0.3, 0.6), (0.9, 1.0)),
    "brown": ((0.05, 0.09), (0.6, 0.85), (0.28, 0.45)),
    "white": ((0.0, 1.0), (0.0, 0.05), (0.93, 1.0)),
    "black": ((0.0, 1.0), (0.0, 0.3), (0.02, 0.1)),
    "grey": ((0.0, 1.0), (0.0, 0.06), (0.42, 0.58)),
}


def _shade(random: np.random.Generator, colour: str) -> np.ndarray:
    hue, saturation, value = (float(random.uniform(*span)) for span in _RANGES[colour])
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def _beside(random: np.random.Generator, colour: str, main: np.ndarray) -> np.ndarray:
    """The second colour of a pattern: white, black, or the main one much darker; never one that has a name of its own
    beside the main one's.
    """
    if colour in ("white", "yellow", "pink"):
        return np.full(3, random.uniform(10, 70), np.float32)
    if colour == "black":
        return np.full(3, random.uniform(190, 250), np.float32)
    return np.full(3, random.uniform(225, 255), np.float32) if random.random() < 0.6 else main * np.float32(0.3)


def _share(random: np.random.Generator, size: int, pattern: str) -> np.ndarray:
    """Where the second colour lies, `[size, size]` in 0..1; it covers less than the main one."""
    if pattern == "plain":
        return np.zeros((size, size), np.float32)
    if pattern == "marbled":
        return np.clip(fractal(random, size, random.uniform(1, 3)) * 1.6 - 0.75, 0, 1).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle, frequency = random.uniform(0, np.pi), random.uniform(5, 9)
    along = (x * np.cos(angle) + y * np.sin(angle)) * frequency
    across = (y * np.cos(angle) - x * np.sin(angle)) * frequency
    if pattern == "striped":
        return (np.sin(2 * np.pi * along) > random.uniform(0.0, 0.35)).astype(np.float32)
    if pattern == "checkered":
        return ((np.floor(along) + np.floor(across)) % 2).astype(np.float32)
    return (np.hypot(along % 1 - 0.5, across % 1 - 0.5) < random.uniform(0.25, 0.36)).astype(np.float32)


def named_coat(random: np.random.Generator, size: int) -> tuple[np.ndarray, str, str]:
    """A coat `[size, size, 3]` f32 in 0..255, its colour and its pattern."""
    colour, pattern = str(random.choice(list(COLOURS))), str(random.choice(list(PATTERNS)))
    main = _shade(random, colour)
    second = _beside(random, colour, main)
    share = _share(random, size, pattern)[..., None]
    image = main * (1 - share) + second * share
    grain = smooth_noise(random, size, int(random.integers(2, 24)))[..., None]
    return np.clip(image * (1 + np.float32(random.uniform(0, 0.12)) * grain), 0, 255), colour, pattern
