"""Outlines of the objects in procedural clips, as signed distances in an object's own frame.

A shape answers, for points of its unit frame and a time, how far inside its outline they are: positive inside, about
one at the centre of a full shape. The renderer turns that into coverage, so that edges are soft.
"""

import numpy as np

KINDS = ("blob", "blob", "ellipse", "box", "star", "ring", "creature", "creature", "cluster")


class Shape:
    """One outline; `bend` and `swing` make it deform through time, `extent` bounds it in its unit frame."""

    extent = 1.35

    def __init__(
        self, random: np.random.Generator, deform: float, kind: str | None = None, aspect: float | None = None
    ):
        self.kind = kind or str(random.choice(KINDS))
        self.aspect = aspect if aspect is not None else float(random.uniform(0.45, 1.0))
        moving = deform if random.random() < 0.7 else 0.0
        self.bend = moving * float(random.normal(0, 0.22))
        self.bend_order = float(random.uniform(1.0, 3.0))
        self.bend_pace, self.bend_phase = float(random.uniform(0.05, 0.35)), float(random.uniform(0, 6.3))
        self.teeth = int(random.integers(4, 9))
        self.waves = [
            (
                int(order),
                float(random.uniform(0.02, 0.2)) / order**0.5,
                float(random.uniform(0, 6.3)),
                moving * random.normal(0, 0.15),
            )
            for order in random.integers(2, 7, 3)
        ]
        self.hole = float(random.uniform(0.35, 0.6))
        self.limbs = self._limbs(random, moving)
        # Legs in the shade, a bright head: parts of one thing may differ more than a thing from what is behind it.
        self.tones = np.ones(len(self.limbs), np.float32)
        if random.random() < 0.5:
            self.tones = random.uniform(0.35, 1.2, len(self.limbs)).astype(np.float32)

    def _limbs(self, random: np.random.Generator, moving: float) -> list[tuple]:
        """Capsules `(x0, y0, x1, y1, thickness, swing, pace, phase)`: a body, a head, legs; or loose round parts."""
        if self.kind == "cluster":
            return [
                (
                    x,
                    y,
                    x + dx,
                    y + dy,
                    float(random.uniform(0.22, 0.42)),
                    0.3 * moving,
                    0.25,
                    float(random.uniform(0, 6.3)),
                )
                for x, y, dx, dy in random.uniform(-0.4, 0.4, (int(random.integers(2, 5)), 4))
            ]
        if self.kind != "creature":
            return []
        half, girth = random.uniform(0.4, 0.65), random.uniform(0.2, 0.36)
        limbs = [(-half, -0.1, half, float(random.uniform(-0.25, 0.05)), girth, 0.0, 0.0, 0.0)]
        head = random.uniform(0.14, 0.26)
        limbs.append((half, -0.1, half + 0.25, float(random.uniform(-0.5, 0.1)), head, 0.25 * moving, 0.2, 1.0))
        pace, spread = random.uniform(0.15, 0.6), random.uniform(0.2, 0.6) * moving
        for leg in range(int(random.integers(2, 5))):
            x = -half + 2 * half * (leg + 0.5) / 4
            limbs.append(
                (x, 0.0, x, float(random.uniform(0.6, 0.95)), random.uniform(0.07, 0.14), spread, pace, 1.7 * leg)
            )
        if random.random() < 0.5:
            limbs.append((-half, -0.1, -half - 0.4, float(random.uniform(-0.5, 0.3)), 0.07, 0.4 * moving, pace, 2.0))
        return limbs

    def warp(self, u: np.ndarray, v: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Points of the bent object back in its straight frame; texture and outline bend alike."""
        if not self.bend:
            return u, v
        size = self.bend * np.sin(self.bend_pace * time + self.bend_phase)
        return u, v + np.float32(size) * np.sin(np.float32(self.bend_order) * u)

    def inside(self, u: np.ndarray, v: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Signed distance of points of the straight frame, f32, about in units of the radius, and the number of the
        limb that each is in, for shapes that have limbs.
        """
        if self.limbs:
            return self._capsules(u, v, time)
        return self._outline(u, v, time), None

    def _outline(self, u: np.ndarray, v: np.ndarray, time: float) -> np.ndarray:
        v = v / np.float32(self.aspect)
        if self.kind == "box":
            return (0.85 - np.maximum(np.abs(u), np.abs(v))) * np.float32(self.aspect)
        distance = np.hypot(u, v)
        if self.kind == "ellipse":
            return (1 - distance) * np.float32(self.aspect)
        if self.kind == "ring":
            return np.minimum(1 - distance, distance - np.float32(self.hole)) * np.float32(self.aspect)
        angle = np.arctan2(v, u)
        edge = np.full_like(distance, 0.9)
        if self.kind == "star":
            edge = 0.7 + np.float32(0.25) * np.cos(self.teeth * angle)
        for order, size, phase, drift in self.waves:
            edge += np.float32(size) * np.sin(order * angle + np.float32(phase + drift * time))
        return (edge - distance) * np.float32(self.aspect)

    def _capsules(self, u: np.ndarray, v: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        best, part = np.full_like(u, -9.0), np.zeros(u.shape, np.uint8)
        for index, (x0, y0, x1, y1, thickness, swing, pace, phase) in enumerate(self.limbs):
            turn = swing * np.sin(pace * time + phase)
            dx, dy = x1 - x0, y1 - y0
            dx, dy = dx * np.cos(turn) - dy * np.sin(turn), dx * np.sin(turn) + dy * np.cos(turn)
            along = np.clip(((u - x0) * dx + (v - y0) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1).astype(np.float32)
            away = np.hypot(u - np.float32(x0) - along * np.float32(dx), v - np.float32(y0) - along * np.float32(dy))
            depth = np.float32(thickness) - away
            deeper = depth > best
            best[deeper], part[deeper] = depth[deeper], index
        return best, part
