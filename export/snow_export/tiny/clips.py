"""Procedural clips with ground truth: textured shapes that move, deform, cross, hide and return.

A clip is a function of its seed and settings alone. Training, held-out and demonstration clips use disjoint ranges of
seeds (`SEEDS`).
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .captions import SHAPES, Looks
from .coats import named_coat
from .motion import Body, Camera, Meeting, Mover, wander
from .shapes import Shape
from .textures import coat, scenery

# Split -> first and last seed.
SEEDS = {"train": (1_000_000, 9_999_999), "calibration": (2_000, 2_999), "held-out": (1_000, 1_999), "demo": (100, 199)}


@dataclass(frozen=True)
class Settings:
    """What clips may contain. Lengths are fractions of the side, times are frames, shares are probabilities.

    `speed` is a typical step of an object from one frame to the next; `meeting` the share of clips in which an
    occluder is aimed at an object, so that it hides all of it or most of it for a while; `staying` the share of these
    that stay in front of it. In a `captioned` clip everything can be spoken of: objects have shapes with a name and,
    but for a share of `photographed` ones, coats with a name, and nothing else is there but the background.
    """

    side: int = 224
    frames: int = 8
    objects: tuple[int, int] = (2, 5)
    radius: tuple[float, float] = (0.07, 0.26)
    speed: float = 0.012
    lookalikes: float = 0.35
    occluders: float = 0.3
    meeting: float = 0.5
    staying: float = 0.4
    crossing: float = 0.3
    leaving: float = 0.15
    camera: float = 0.7
    clutter: float = 0.5
    deform: float = 1.0
    noise: float = 10.0
    jpeg: float = 0.5
    blur: float = 0.35
    light: float = 0.5
    captioned: bool = False
    photographed: float = 0.15


@dataclass
class Clip:
    """`frames` u8 `[t, side, side, 3]`; `ids` u8 `[t, side, side]`: the object that is seen, 0 for none.

    `areas` i32 `[t, objects + 1]`: pixels inside the frame that an object would show if nothing hid it; column 0 is
    unused. `looks` says what each object is, object 1 first, if the clip is captioned.
    """

    frames: np.ndarray
    ids: np.ndarray
    areas: np.ndarray
    looks: list[Looks] | None = None

    def seen(self) -> np.ndarray:
        """Visible pixels `[t, objects + 1]`, to compare with `areas`."""
        count = self.areas.shape[1]
        return np.stack([np.bincount(ids.ravel(), minlength=count)[:count] for ids in self.ids])


def _any_shape(random: np.random.Generator, settings: Settings) -> Shape:
    return Shape(random, settings.deform)


def _named_shape(random: np.random.Generator, settings: Settings) -> Shape:
    return Shape(random, settings.deform, str(random.choice(list(SHAPES))))


def _dressed(random: np.random.Generator, settings: Settings, radius: float, shape: Shape | None = None) -> dict:
    """Everything of a `Body` but its motion."""
    light = random.uniform(0, 6.3), random.uniform(0, 0.6), random.uniform(0, 0.5)
    if settings.captioned and shape is None:
        shape = _named_shape(random, settings)
    shape = shape or Shape(random, settings.deform)
    size, looks = max(16, int(2.6 * radius * settings.side)), None
    if settings.captioned and random.random() >= settings.photographed:
        texture, colour, pattern = named_coat(random, size)
        looks = Looks(shape.kind, colour, pattern)
    else:
        texture = coat(random, size)
        looks = Looks(shape.kind) if settings.captioned else None
    return {
        "shape": shape,
        "texture": texture.astype(np.uint8),
        "looks": looks,
        "radius": radius,
        "light": (float(light[0]), float(light[1]), float(light[2])),
        "soft": float(random.uniform(0.6, 2.2)),
    }


def _free_radius(random: np.random.Generator, settings: Settings) -> float:
    return float(np.exp(random.uniform(*np.log(settings.radius))))


def _objects(random: np.random.Generator, settings: Settings) -> list[Body]:
    bodies: list[Body] = []
    for identity in range(1, int(random.integers(settings.objects[0], settings.objects[1] + 1)) + 1):
        motion = wander(random, settings.speed, random.random() < settings.leaving)
        if bodies and random.random() < settings.lookalikes:
            model = bodies[int(random.integers(len(bodies)))]
            new = _named_shape if settings.captioned else _any_shape
            shape = model.shape if random.random() < 0.5 else new(random, settings)
            dress = _dressed(random, settings, model.radius * random.uniform(0.8, 1.2), shape)
            dress |= {"texture": model.texture, "light": model.light}
            if model.looks:
                dress["looks"] = replace(model.looks, shape=shape.kind)
        else:
            dress = _dressed(random, settings, _free_radius(random, settings))
        body = Body(**dress, **motion, identity=identity)
        if bodies and random.random() < settings.crossing:
            body.meeting = meeting_with(random, settings, bodies[int(random.integers(len(bodies)))], body.radius)
        bodies.append(body)
    return bodies


def meeting_with(
    random: np.random.Generator, settings: Settings, other: Mover, reach: float, dwell: float = 0.0
) -> Meeting:
    """Passes over `other` near the middle of the clip and is clear of it on the first frame."""
    clear = 1.3 * (reach + other.radius)
    when = random.uniform(0.3, 0.75) * max(settings.frames - 1, 1)
    speed = max(clear / max(when - dwell / 2, 1.0), settings.speed * random.uniform(1.0, 3.0))
    angle, offset = random.uniform(0, 6.3), float(random.normal(0, 0.2 * other.radius))
    return Meeting(other, when, float(speed), angle, offset, dwell)


def _occluders(random: np.random.Generator, settings: Settings, bodies: list[Body]) -> list[Body]:
    """Things in front that are no objects: some pass by anywhere, one may be aimed at an object."""
    found = []
    if random.random() < settings.occluders:
        shape = Shape(random, settings.deform, "box", float(random.uniform(0.15, 0.6)))
        dress = _dressed(random, settings, float(random.uniform(0.15, 0.35)), shape)
        still = random.random() < 0.4
        motion = wander(random, 0.0 if still else 2 * settings.speed, not still)
        found.append(Body(**dress, **motion))
    if settings.frames > 1 and random.random() < settings.meeting:
        other = bodies[int(random.integers(len(bodies)))]
        kind = str(random.choice(["box", "box", "ellipse", "blob"]))
        radius = other.radius * random.uniform(1.2, 2.0)
        shape = Shape(random, settings.deform, kind, float(random.uniform(0.8, 1.0)))
        body = Body(**_dressed(random, settings, radius, shape), **wander(random, settings.speed, False))
        dwell = random.uniform(0.05, 0.3) * settings.frames if random.random() < settings.staying else 0.0
        body.meeting = meeting_with(random, settings, other, radius, dwell)
        found.append(body)
    return found


def _paint(image: np.ndarray, ids: np.ndarray, body: Body, time: float, camera) -> int:
    """Draws a body over the image and returns the pixels that it covers inside the frame."""
    side = image.shape[0]
    zoom, dx, dy, roll = camera
    x, y = body.place(time)
    cos, sin = np.cos(roll), np.sin(roll)
    cx = (((x - 0.5) * cos - (y - 0.5) * sin) * zoom + 0.5 + dx) * side
    cy = (((x - 0.5) * sin + (y - 0.5) * cos) * zoom + 0.5 + dy) * side
    radius = max(body.size(time) * side * zoom, 2.0)
    reach = body.shape.extent * radius
    left, right = int(max(cx - reach, 0)), int(min(cx + reach + 1, side))
    top, bottom = int(max(cy - reach, 0)), int(min(cy + reach + 1, side))
    if left >= right or top >= bottom:
        return 0
    down, across = np.mgrid[top:bottom, left:right].astype(np.float32)
    across, down = (across - np.float32(cx)) / np.float32(radius), (down - np.float32(cy)) / np.float32(radius)
    turn = body.turn.at(time) + roll
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = body.shape.warp(across * cos + down * sin, down * cos - across * sin, time)
    depth, part = body.shape.inside(u, v, time)
    cover = np.clip(depth * np.float32(radius / body.soft) + 0.5, 0, 1)
    touched = cover > 0
    if not touched.any():
        return 0
    count = body.texture.shape[0]
    scale = np.float32(count / (2 * body.shape.extent))
    half = np.float32(body.shape.extent)
    u, v, cover = u[touched], v[touched], cover[touched]
    column = np.clip((u + half) * scale, 0, count - 1).astype(np.int32)
    row = np.clip((v + half) * scale, 0, count - 1).astype(np.int32)
    angle, slope, rim = body.light
    shade = 1 + np.float32(slope) * (u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle)))
    shade -= np.float32(rim) * np.clip(1 - 4 * depth[touched], 0, 1)
    if body.shape.limbs:
        shade *= body.shape.tones[part[touched]]
    colour = np.clip(body.texture[row, column] * shade[:, None], 0, 255)
    window = image[top:bottom, left:right]
    window[touched] += cover[:, None] * (colour - window[touched])
    solid = touched.copy()
    solid[touched] = cover > 0.5
    ids[top:bottom, left:right][solid] = body.identity or 0
    return int(solid.sum())


class Look:
    """Light, sensor and codec of a clip."""

    def __init__(self, random: np.random.Generator, settings: Settings):
        self.side = settings.side
        self.contrast = random.uniform(0.7, 1.15)
        self.light = random.uniform(0, 25) if random.random() < settings.light else 0.0
        self.speed, self.phase = random.uniform(0.05, 0.4), random.uniform(0, 6.3)
        level = random.uniform(0, settings.noise) if random.random() < 0.7 else 0.0
        # Frames take windows of one field of noise: drawing it anew would be most of the time of a frame.
        self.noise = None
        if level:
            self.noise = random.standard_normal((settings.side + 48,) * 2 + (3,), np.float32) * np.float32(level)
        self.shrink = random.uniform(0.45, 0.95) if random.random() < settings.blur else 1.0
        self.jpeg = int(random.integers(30, 95)) if random.random() < settings.jpeg else 0

    def finish(self, random: np.random.Generator, image: np.ndarray, time: float) -> np.ndarray:
        """A frame as a camera gives it, u8."""
        shift = 128 + self.light * np.sin(self.speed * time + self.phase) - 128 * self.contrast
        image = image * np.float32(self.contrast) + np.float32(shift)
        side = self.side
        if self.noise is not None:
            top, left = random.integers(0, 49, 2)
            image += self.noise[top : top + side, left : left + side]
        picture = Image.fromarray(np.clip(image, 0, 255, out=image).astype(np.uint8))
        if self.shrink < 1:
            small = max(int(side * self.shrink), 32)
            picture = picture.resize((small, small), Image.BILINEAR).resize((side, side), Image.BICUBIC)
        if self.jpeg:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=self.jpeg)
            picture = Image.open(buffer)
        return np.asarray(picture, np.uint8)


def _scene(random: np.random.Generator, settings: Settings) -> Image.Image:
    """The still background, larger than a frame, often with things on it that never move."""
    size = int(settings.side * 1.6)
    picture = scenery(random, size)
    if random.random() < settings.clutter:
        ignored = np.zeros((size, size), np.uint8)
        for _ in range(int(random.integers(1, 6))):
            body = Body(**_dressed(random, settings, _free_radius(random, settings)), **wander(random, 0.0, False))
            _paint(picture, ignored, body, 0.0, (1.0, 0.0, 0.0, 0.0))
    return Image.fromarray(picture.astype(np.uint8))


def _background(scene: Image.Image, side: int, camera) -> np.ndarray:
    zoom, dx, dy, roll = camera
    step, centre = 1 / zoom, scene.size[0] / 2
    cos, sin = np.cos(roll) * step, np.sin(roll) * step
    middle_x, middle_y = (0.5 + dx) * side, (0.5 + dy) * side
    matrix = (cos, sin, centre - cos * middle_x - sin * middle_y, -sin, cos, centre + sin * middle_x - cos * middle_y)
    return np.array(scene.transform((side, side), Image.AFFINE, matrix, Image.BILINEAR), np.float32)


def make_clip(seed: int, settings: Settings | None = None) -> Clip:
    """The clip of a seed."""
    settings = settings or Settings()
    random = np.random.default_rng(seed)
    side, count = settings.side, settings.frames
    scene = _scene(random, settings)
    bodies = _objects(random, settings)
    everything = bodies + _occluders(random, settings, bodies)
    camera = Camera(random, settings.speed if random.random() < settings.camera else 0.0)
    look = Look(random, settings)
    frames = np.empty((count, side, side, 3), np.uint8)
    ids = np.zeros((count, side, side), np.uint8)
    areas = np.zeros((count, len(bodies) + 1), np.int32)
    for time in range(count):
        view = camera.at(time)
        image = _background(scene, side, view)
        for body in everything:
            area = _paint(image, ids[time], body, time, view)
            if body.identity is not None:
                areas[time, body.identity] = area
        frames[time] = look.finish(random, image, time)
    looks = [body.looks for body in bodies if body.looks] if settings.captioned else None
    return Clip(frames, ids, areas, looks)


# Most objects look like another and cross it: what a tracker mistakes most.
LOOKALIKES = Settings(objects=(2, 4), lookalikes=0.8, crossing=0.7, radius=(0.09, 0.26))


def varied(random: np.random.Generator, side: int, frames: int) -> Settings:
    """Settings of a training clip: short clips run through as much motion as long ones by running faster."""
    return Settings(
        side=side,
        frames=frames,
        speed=float(np.exp(random.uniform(np.log(0.005), np.log(0.035)))),
        objects=(2, int(random.integers(3, 7))),
        radius=(0.06, float(random.uniform(0.2, 0.36))),
        lookalikes=float(random.uniform(0, 0.6)),
        meeting=float(random.uniform(0.4, 1.0)),
        crossing=float(random.uniform(0.1, 0.6)),
        deform=float(random.uniform(0.3, 1.5)),
        noise=float(random.uniform(2, 14)),
    )
