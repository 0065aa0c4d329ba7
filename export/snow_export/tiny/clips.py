"""Procedural clips with ground truth: textured shapes that move, deform, cross, hide and return.

A clip is a function of its seed and settings alone. Training, held-out and demonstration clips use disjoint ranges of
seeds (`SEEDS`).
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .textures import texture

# Split -> first and last seed.
SEEDS = {"train": (1_000_000, 9_999_999), "held-out": (1_000, 1_999), "demo": (100, 199)}


@dataclass(frozen=True)
class Settings:
    """What clips may contain. Lengths are fractions of the side, times are frames."""

    side: int = 224
    frames: int = 8
    objects: tuple[int, int] = (2, 5)
    radius: tuple[float, float] = (0.06, 0.22)
    speed: float = 0.025
    lookalikes: float = 0.4
    occluders: float = 0.5
    leaving: float = 0.15
    camera: float = 0.7
    deform: float = 0.6
    noise: float = 10.0
    jpeg: float = 0.6
    blur: float = 0.3
    light: float = 0.5


@dataclass
class Clip:
    """`frames` u8 `[t, side, side, 3]`, `ids` u8 `[t, side, side]` (0 background, visible object otherwise)."""

    frames: np.ndarray
    ids: np.ndarray


class _Path:
    """A smooth path of a number through time: a line and two sines, reflected where `bounds` end."""

    def __init__(self, random: np.random.Generator, start, slope, swing, frames: int, bounds=None):
        self.start, self.slope, self.bounds = start, slope, bounds
        self.swings = [
            (random.normal(0, swing), random.uniform(0.3, 1.6) * 2 * np.pi / max(frames, 16), random.uniform(0, 6.3))
            for _ in range(2)
        ]

    def at(self, time: float) -> float:
        swing = sum(size * (np.sin(speed * time + phase) - np.sin(phase)) for size, speed, phase in self.swings)
        value = self.start + self.slope * time + swing
        if self.bounds is None:
            return value
        low, high = self.bounds
        phase = (value - low) / (high - low) % 2
        return low + (high - low) * (phase if phase < 1 else 2 - phase)


class _Shape:
    """A star-shaped or boxy outline whose radius depends on the angle, with a texture that moves along."""

    def __init__(self, random: np.random.Generator, settings: Settings, radius: float):
        self.radius = radius
        self.kind = random.choice(["blob", "blob", "ellipse", "box", "star", "ring"])
        self.aspect = random.uniform(0.5, 1.0)
        self.teeth = int(random.integers(4, 9))
        self.waves = [
            (int(order), random.uniform(0.02, 0.22) / order**0.5, random.uniform(0, 6.3), random.normal(0, 0.12))
            for order in random.integers(2, 7, 3)
        ]
        self.deform = settings.deform if random.random() < 0.7 else 0.0
        self.size = max(16, int(2.6 * radius * settings.side))
        self.texture = texture(random, self.size)

    def inside(self, u: np.ndarray, v: np.ndarray, time: float) -> np.ndarray:
        """Which points of the unit frame belong to the shape."""
        v = v / self.aspect
        if self.kind == "box":
            return np.maximum(np.abs(u), np.abs(v)) < 0.85
        distance = np.hypot(u, v)
        if self.kind == "ellipse":
            return distance < 1
        if self.kind == "ring":
            return (distance < 1) & (distance > 0.45)
        angle = np.arctan2(v, u)
        edge = np.full_like(distance, 0.9)
        if self.kind == "star":
            edge = 0.7 + 0.25 * np.cos(self.teeth * angle)
        for order, size, phase, drift in self.waves:
            edge += size * np.sin(order * angle + phase + self.deform * drift * time)
        return distance < edge


@dataclass
class _Body:
    shape: _Shape
    x: _Path
    y: _Path
    turn: _Path
    scale: _Path


def _body(random: np.random.Generator, settings: Settings, shape: _Shape) -> _Body:
    t = settings.frames
    leaving = random.random() < settings.leaving
    x, y = random.uniform(0.12, 0.88, 2)
    bounds = None if leaving else (0.06, 0.94)
    speed = settings.speed * (3.0 if leaving else 1.0)
    return _Body(
        shape,
        _Path(random, x, random.normal(0, speed), 4 * settings.speed, t, bounds),
        _Path(random, y, random.normal(0, speed), 4 * settings.speed, t, bounds),
        _Path(random, random.uniform(0, 6.3), random.normal(0, 0.06), 0.25, t),
        _Path(random, 0.0, random.normal(0, 0.01), 0.12, t),
    )


def _paint(image, ids, body: _Body, time: float, identity: int | None, camera) -> None:
    """Draws a body over the image; `identity` None is an occluder, which hides objects and is none."""
    side = image.shape[0]
    zoom, dx, dy = camera
    cx = ((body.x.at(time) - 0.5) * zoom + 0.5 + dx) * side
    cy = ((body.y.at(time) - 0.5) * zoom + 0.5 + dy) * side
    radius = body.shape.radius * side * float(np.exp(np.clip(body.scale.at(time), -0.7, 0.7))) * zoom
    reach = 1.35 * radius
    left, right = int(max(cx - reach, 0)), int(min(cx + reach + 1, side))
    top, bottom = int(max(cy - reach, 0)), int(min(cy + reach + 1, side))
    if left >= right or top >= bottom:
        return
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    turn = body.turn.at(time)
    u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / radius
    v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / radius
    inside = body.shape.inside(u, v, time)
    if not inside.any():
        return
    scale = body.shape.size / 2.7
    column = np.clip((u[inside] + 1.35) * scale, 0, body.shape.size - 1).astype(np.int32)
    row = np.clip((v[inside] + 1.35) * scale, 0, body.shape.size - 1).astype(np.int32)
    image[top:bottom, left:right][inside] = body.shape.texture[row, column]
    ids[top:bottom, left:right][inside] = 0 if identity is None else identity


def _background(picture: np.ndarray, side: int, camera) -> np.ndarray:
    zoom, dx, dy = camera
    size = picture.shape[0]
    step = np.arange(side, dtype=np.float32) / side
    column = np.clip(((step - 0.5 - dx) / zoom * 0.72 + 0.5) * size, 0, size - 1).astype(np.int32)
    row = np.clip(((step - 0.5 - dy) / zoom * 0.72 + 0.5) * size, 0, size - 1).astype(np.int32)
    return picture[row[:, None], column[None]]


def _finish(random: np.random.Generator, settings: Settings, image: np.ndarray, look: dict, time: float) -> np.ndarray:
    image = (image - 128) * look["contrast"] + 128 + look["light"] * np.sin(look["speed"] * time + look["phase"])
    if look["noise"]:
        image = image + random.normal(0, look["noise"], image.shape)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if look["shrink"] < 1:
        small = max(int(settings.side * look["shrink"]), 32)
        picture = picture.resize((small, small), Image.BILINEAR).resize((settings.side,) * 2, Image.BICUBIC)
    if look["jpeg"]:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=look["jpeg"])
        picture = Image.open(buffer)
    return np.asarray(picture, np.uint8)


def make_clip(seed: int, settings: Settings | None = None) -> Clip:
    """The clip of a seed."""
    settings = settings or Settings()
    random = np.random.default_rng(seed)
    side, count = settings.side, settings.frames
    picture = texture(random, int(side * 1.4))
    bodies: list[_Body] = []
    for _ in range(int(random.integers(settings.objects[0], settings.objects[1] + 1))):
        if bodies and random.random() < settings.lookalikes:
            shape = bodies[int(random.integers(len(bodies)))].shape
            if random.random() < 0.5:
                other = _Shape(random, settings, shape.radius)
                other.texture, other.size = shape.texture, shape.size
                shape = other
        else:
            low, high = np.log(settings.radius)
            shape = _Shape(random, settings, float(np.exp(random.uniform(low, high))))
        bodies.append(_body(random, settings, shape))
    occluder = None
    if random.random() < settings.occluders:
        bar = _Shape(random, settings, float(random.uniform(0.12, 0.3)))
        bar.kind, bar.aspect = "box", random.uniform(0.2, 1.0)
        occluder = _body(random, replace(settings, speed=settings.speed * 1.5), bar)
    moving = random.random() < settings.camera
    swing = 0.5 * settings.speed if moving else 0.0
    zoom, pan, tilt = (
        _Path(random, 0.0, random.normal(0, swing / 4), swing * size, count, (-0.15, 0.15)) for size in (0.8, 1.5, 1.5)
    )
    look = {
        "contrast": random.uniform(0.7, 1.15),
        "light": random.uniform(0, 25) if random.random() < settings.light else 0.0,
        "speed": random.uniform(0.05, 0.4),
        "phase": random.uniform(0, 6.3),
        "noise": random.uniform(0, settings.noise) if random.random() < 0.7 else 0.0,
        "shrink": random.uniform(0.45, 0.95) if random.random() < settings.blur else 1.0,
        "jpeg": int(random.integers(30, 95)) if random.random() < settings.jpeg else 0,
    }
    frames = np.empty((count, side, side, 3), np.uint8)
    ids = np.zeros((count, side, side), np.uint8)
    for time in range(count):
        camera = (float(np.exp(np.clip(zoom.at(time), -0.3, 0.3))), pan.at(time), tilt.at(time))
        image = _background(picture, side, camera)
        for identity, body in enumerate(bodies, start=1):
            _paint(image, ids[time], body, time, identity, camera)
        if occluder is not None:
            _paint(image, ids[time], occluder, time, None, camera)
        frames[time] = _finish(random, settings, image, look, time)
    return Clip(frames, ids)
