"""How objects and the camera of a procedural clip move. Lengths are fractions of the frame's side, times are frames."""

from dataclasses import dataclass

import numpy as np

from .captions import Looks
from .shapes import Shape


class Path:
    """A smooth path of a number through time: a line and two sines, reflected where `bounds` end."""

    def __init__(self, random: np.random.Generator, start: float, slope: float, swing: float, bounds=None):
        self.start, self.slope, self.bounds = start, slope, bounds
        self.swings = [(random.normal(0, swing), random.uniform(0.02, 0.4), random.uniform(0, 6.3)) for _ in range(2)]

    def at(self, time: float) -> float:
        """The value at a time."""
        swing = sum(size * (np.sin(speed * time + phase) - np.sin(phase)) for size, speed, phase in self.swings)
        value = self.start + self.slope * time + swing
        if self.bounds is None:
            return float(value)
        low, high = self.bounds
        phase = (value - low) / (high - low) % 2
        return float(low + (high - low) * (phase if phase < 1 else 2 - phase))


@dataclass
class Meeting:
    """A path relative to another: there at `when` for `dwell`, passing with `speed` in the direction `angle`, `offset`
    aside.
    """

    other: "Mover"
    when: float
    speed: float
    angle: float
    offset: float
    dwell: float = 0.0

    def at(self, time: float) -> tuple[float, float]:
        """The place at a time."""
        x, y = self.other.place(time)
        late = time - self.when
        along = np.sign(late) * max(abs(late) - self.dwell / 2, 0) * self.speed
        dx, dy = np.cos(self.angle), np.sin(self.angle)
        return float(x + along * dx - self.offset * dy), float(y + along * dy + self.offset * dx)


@dataclass(kw_only=True)
class Mover:
    """Something on its way; `radius` is a share of the side."""

    radius: float
    x: Path
    y: Path
    turn: Path
    scale: Path
    meeting: Meeting | None = None
    identity: int | None = None

    def place(self, time: float) -> tuple[float, float]:
        """The centre, before the camera."""
        if self.meeting is not None:
            return self.meeting.at(time)
        return self.x.at(time), self.y.at(time)

    def size(self, time: float) -> float:
        """The radius at a time, before the camera."""
        return self.radius * float(np.exp(np.clip(self.scale.at(time), -0.7, 0.7)))


@dataclass(kw_only=True)
class Body(Mover):
    """A textured shape on its way. `texture` is u8 `[n, n, 3]` over the shape's extent."""

    shape: Shape
    texture: np.ndarray
    light: tuple[float, float, float]
    soft: float
    looks: Looks | None = None


def wander(random: np.random.Generator, speed: float, leaving: bool) -> dict:
    """Free motion as arguments of `Body`; one that leaves may cross the border of the frame and come back."""
    x, y = random.uniform(0.1, 0.9, 2)
    bounds = (-0.45, 1.45) if leaving else (0.06, 0.94)
    pace = speed * (2.5 if leaving else 1.0)
    return {
        "x": Path(random, x, random.normal(0, pace), 3 * speed, bounds),
        "y": Path(random, y, random.normal(0, pace), 3 * speed, bounds),
        "turn": Path(random, random.uniform(-0.5, 0.5), random.normal(0, 1.2 * speed), 8 * speed),
        "scale": Path(random, 0.0, random.normal(0, 0.4 * speed), 4 * speed),
    }


class Camera:
    """Zoom, pan and roll."""

    def __init__(self, random: np.random.Generator, speed: float):
        zoom = random.normal(0, speed / 6), speed
        self.zoom = Path(random, 0.0, *zoom, (-0.18, 0.18))
        self.pan = Path(random, 0.0, random.normal(0, speed / 2), 2 * speed, (-0.16, 0.16))
        self.tilt = Path(random, 0.0, random.normal(0, speed / 2), 2 * speed, (-0.16, 0.16))
        self.roll = Path(random, 0.0, random.normal(0, speed / 6), speed, (-0.2, 0.2))

    def at(self, time: float) -> tuple[float, float, float, float]:
        """`(scale, dx, dy, angle)` of the image relative to the scene, about the centre."""
        return float(np.exp(self.zoom.at(time))), self.pan.at(time), self.tilt.at(time), self.roll.at(time)
