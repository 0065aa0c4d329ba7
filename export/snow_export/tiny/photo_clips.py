"""Clips made of photographs, with ground truth: cut-out things and pieces move through a photograph before a camera.

A clip is a function of its seed, its settings and the cuttings that it is made of (`photo_pack`). Seeds are those of
drawn clips; what is held out are photographs too.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .clips import Clip, Look, meeting_with
from .motion import Mover, Path, wander
from .photo_pack import MARGIN, Pack, Thing
from .photo_scene import Scene, ShakyCamera, as_tensor, blurred, coarse_places, fine
from .shapes import Shape
from .sway import Sway
from .textures import smooth_noise


@dataclass(frozen=True)
class PhotoSettings:
    """What clips may contain, as in `clips.Settings`. `at_home` is the share of clips with a thing where it was in its
    photograph, `same_kind` that of objects like another, `alike` that of objects with the colours of what is behind
    them, `drawn` that of objects with a drawn shape and a photograph's surface, `pieces` that of pieces of photographs.
    """

    side: int = 448
    frames: int = 24
    objects: tuple[int, int] = (1, 4)
    radius: tuple[float, float] = (0.07, 0.4)
    speed: float = 0.012
    at_home: float = 0.35
    same_kind: float = 0.35
    alike: float = 0.35
    drawn: float = 0.3
    pieces: float = 0.25
    shadows: float = 0.5
    occluders: float = 0.45
    meeting: float = 0.35
    crossing: float = 0.35
    leaving: float = 0.12
    camera: float = 0.8
    shake: float = 0.003
    deform: float = 1.0
    noise: float = 8.0
    jpeg: float = 0.5
    blur: float = 0.35
    light: float = 0.4


@dataclass(kw_only=True)
class Figure(Mover):
    """A thing on its way. `image` f32 `[4, h, w]` in 0..255 reaches `half` radii from its centre, across and down; with
    a `shape`, that says what is covered, and there is no fourth channel; `other` is what limbs wear, and which of them.
    """

    image: Tensor
    half: tuple[float, float]
    sway: Sway
    turned: Path
    shade: float
    shadow: float
    near: float
    mirrored: bool
    shape: Shape | None = None
    other: tuple[Tensor, np.ndarray] | None = None
    alike: float = 0.0
    tint: Tensor | None = None


def _layer_half(image: np.ndarray) -> tuple[float, float]:
    height, width = image.shape[:2]
    reach = (1 + 2 * MARGIN) / max(height, width)
    return width * reach, height * reach


def _patch(random: np.random.Generator, photograph: np.ndarray) -> np.ndarray:
    """A square piece of a photograph."""
    side = int(random.uniform(0.2, 0.6) * min(photograph.shape[:2]))
    top, left = (int(random.integers(length - side + 1)) for length in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def _surface(random: np.random.Generator, pack: Pack) -> Tensor:
    """A piece of a photograph, often with patches of another: f32 `[3, 256, 256]`."""
    image, other = (
        np.asarray(Image.fromarray(_patch(random, _any(random, pack.photographs))).resize((256, 256), Image.BILINEAR))
        for _ in range(2)
    )
    if random.random() < 0.4:
        patches = smooth_noise(random, 256, int(random.integers(1, 5))) > random.uniform(-0.3, 0.3)
        image = np.where(patches[..., None], other, image)
    return as_tensor(image)


def _any(random: np.random.Generator, items: list):
    return items[int(random.integers(len(items)))]


def _dressed(random: np.random.Generator, settings: PhotoSettings, radius: float, like: Figure | None = None) -> dict:
    """Everything of a `Figure` but its motion and its picture."""
    tint = random.uniform(0.8, 1.2) * random.uniform(0.93, 1.07, (3, 1, 1))
    return {
        "radius": radius,
        "sway": Sway(random, settings.deform),
        "turned": Path(random, 0.0, random.normal(0, 0.5 * settings.speed), 6 * settings.speed, (-0.9, 0.9)),
        "shade": float(random.uniform(0, 0.75)) if random.random() < 0.6 else 0.0,
        "shadow": float(random.uniform(0.25, 0.7)) if random.random() < settings.shadows else 0.0,
        "near": float(random.uniform(-0.2, 0.6)),
        "mirrored": bool(random.random() < 0.5),
        "alike": float(random.uniform(0.4, 1.0)) if random.random() < settings.alike else 0.0,
        "tint": torch.from_numpy((tint if like is None else tint**0.5).astype(np.float32)),
    }


def _pictured(random: np.random.Generator, settings: PhotoSettings, pack: Pack) -> dict:
    """What a figure shows, as arguments of `Figure`."""
    luck = random.random()
    if luck < settings.drawn:
        # What has legs is what a tracker takes for several things.
        shape = Shape(random, settings.deform, "creature" if random.random() < 0.5 else None)
        image, other = _surface(random, pack), None
        if shape.limbs and random.random() < 0.5:
            other = _surface(random, pack), random.random(len(shape.limbs)) < 0.5
        return {"image": image, "half": (shape.extent,) * 2, "shape": shape, "other": other}
    thing: Thing = _any(random, pack.pieces if luck < settings.drawn + settings.pieces else pack.things)
    stretch = float(np.exp(random.uniform(-0.25, 0.25)))
    half = _layer_half(thing.image)
    return {"image": as_tensor(thing.image), "half": (half[0] * stretch, half[1] / stretch)}


def _free_radius(random: np.random.Generator, settings: PhotoSettings) -> float:
    return float(np.exp(random.uniform(*np.log(settings.radius))))


def _at_home(
    random: np.random.Generator, settings: PhotoSettings, pack: Pack
) -> tuple[np.ndarray, tuple[float, float, float, float], bool, Figure]:
    """A photograph without its thing, the crop of it that is seen, whether that is mirrored, and the thing."""
    thing = _any(random, [t for t in pack.things if t.box is not None])
    left, top, right, bottom = thing.box
    margin = MARGIN / (1 + 2 * MARGIN)
    wide, high = (right - left) * (1 - 2 * margin), (bottom - top) * (1 - 2 * margin)
    wanted = random.uniform(0.3, 0.75)
    # The crop is what makes the thing as large as wanted, if the photograph is large enough for that.
    span = np.clip(max(wide, high) / wanted * np.exp(random.uniform(-0.2, 0.2, 2)), 0.25, 0.95)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    aside = random.uniform(-1, 1, 2) * np.maximum(0, (span - [wide, high]) / 2)
    low = np.clip(middle - span / 2 + aside, 0, 1 - span)
    crop = (float(low[0]), float(low[1]), float(low[0] + span[0]), float(low[1] + span[1]))
    mirrored = bool(random.random() < 0.5)
    place = (middle - low) / span
    if mirrored:
        place[0] = 1 - place[0]
    half = (right - left) / 2 / span[0], (bottom - top) / 2 / span[1]
    radius = float(max(half) / (1 + 2 * MARGIN))
    dress = _dressed(random, settings, radius)
    dress |= {"mirrored": mirrored, "alike": 0.0, "tint": None, "near": 0.0, "shade": dress["shade"] * 0.4}
    motion = wander(random, 0.7 * settings.speed, False)
    slow = settings.speed * random.uniform(0.1, 1.0)
    for axis, start in zip("xy", place, strict=True):
        drift = random.normal(0, 0.7 * slow)
        motion[axis] = Path(random, float(start), drift, 2 * slow, (min(start, 0.05), max(start, 0.95)))
    motion["turn"] = Path(random, 0.0, random.normal(0, 0.5 * slow), 3 * slow)
    figure = Figure(
        image=as_tensor(thing.image), half=(half[0] / radius, half[1] / radius), identity=1, **dress, **motion
    )
    return thing.behind, crop, mirrored, figure


def _free_crop(random: np.random.Generator) -> tuple[float, float, float, float]:
    span = np.clip(random.uniform(0.35, 0.9) * np.exp(random.uniform(-0.3, 0.3, 2)), 0.3, 0.95)
    low = random.uniform(0, 1 - span)
    return float(low[0]), float(low[1]), float(low[0] + span[0]), float(low[1] + span[1])


def _figures(random: np.random.Generator, settings: PhotoSettings, pack: Pack, first: list[Figure]) -> list[Figure]:
    figures = list(first)
    count = max(len(first), int(random.integers(settings.objects[0], settings.objects[1] + 1)))
    for identity in range(len(first) + 1, count + 1):
        motion = wander(random, settings.speed, random.random() < settings.leaving)
        if figures and random.random() < settings.same_kind:
            model = _any(random, figures)
            dress = _dressed(random, settings, model.radius * random.uniform(0.75, 1.25), model)
            picture = {"image": model.image, "half": model.half, "shape": model.shape, "other": model.other}
        else:
            dress = _dressed(random, settings, _free_radius(random, settings))
            picture = _pictured(random, settings, pack)
        figure = Figure(**dress, **picture, **motion, identity=identity)
        if figures and random.random() < settings.crossing:
            figure.meeting = meeting_with(random, settings, _any(random, figures), figure.radius)
        figures.append(figure)
    return figures


def _occluders(random: np.random.Generator, settings: PhotoSettings, pack: Pack, figures: list[Figure]) -> list[Figure]:
    """Things in front that are no objects: leaves and stones at the border, some that pass, one aimed at an object."""
    found = []
    for _ in range(int(random.integers(1, 4)) if random.random() < settings.occluders else 0):
        dress = _dressed(random, settings, float(random.uniform(0.1, 0.35)))
        still = random.random() < 0.7
        motion = wander(random, 0.0 if still else 1.5 * settings.speed, not still)
        if still:
            dress["sway"] = Sway(random, 0.0)
            edge = [float(random.uniform(0, 1)), float(random.choice([-0.05, 1.0, 1.05]))]
            x, y = edge if random.random() < 0.6 else edge[::-1]
            motion |= {axis: Path(random, at, 0.0, 0.0) for axis, at in (("x", x), ("y", y))}
        found.append(Figure(**dress, **_pictured(random, settings, pack), **motion))
    if settings.frames > 1 and random.random() < settings.meeting:
        other = _any(random, figures)
        radius = other.radius * random.uniform(0.7, 1.5)
        dress = _dressed(random, settings, radius)
        figure = Figure(**dress, **_pictured(random, settings, pack), **wander(random, settings.speed, False))
        dwell = random.uniform(0.05, 0.3) * settings.frames if random.random() < 0.4 else 0.0
        figure.meeting = meeting_with(random, settings, other, radius, dwell)
        found.append(figure)
    return found


class Painter:
    """Paints figures over frames of a scene."""

    def __init__(self, scene: Scene):
        self.scene, self.side = scene, scene.side

    def _spot(self, figure: Figure, time: float, view) -> tuple[float, float]:
        """Where a figure's centre is seen, in shares of the side from the centre."""
        zoom, dx, dy, roll = view
        x, y = figure.place(time)
        near = self.scene.parallax * figure.near
        x, y = x - 0.5 + near * dx, y - 0.5 + near * dy
        cos, sin = float(np.cos(roll)), float(np.sin(roll))
        return (x * cos - y * sin) * zoom + dx, (x * sin + y * cos) * zoom + dy

    def paint(self, image: Tensor, light: Tensor, ids: np.ndarray, figure: Figure, time: int, view) -> int:
        """Paints over `image` f32 `[3, side, side]` in the `light` `[1, side, side]` and over `ids`; returns the pixels
        that are covered inside the frame.
        """
        side, zoom, roll = self.side, view[0], view[3]
        x, y = self._spot(figure, time, view)
        size = figure.size(time) * zoom
        reach = size * float(np.hypot(*figure.half))
        left, right = int(max((x + 0.5 - reach) * side, 0)), int(min((x + 0.5 + reach) * side + 1, side))
        top, bottom = int(max((y + 0.5 - reach) * side, 0)), int(min((y + 0.5 + reach) * side + 1, side))
        if right - left < 2 or bottom - top < 2:
            return 0
        later = self._spot(figure, time + 0.5, view)
        fast = float(np.hypot(later[0] - x, later[1] - y)) * side
        count = 1 if fast < 2 else 3 if fast < 12 else 5
        taps = np.linspace(-0.4, 0.4, count).tolist() if count > 1 else [0.0]
        down, across = coarse_places(top, bottom, left, right, side)
        across, down, window = across - x, down - y, (bottom - top, right - left)
        angle = figure.turn.at(time) + roll
        layers = []
        for tap in taps:
            aside = across - tap * (later[0] - x), down - tap * (later[1] - y)
            layers.append(self._sampled(figure, time, *aside, window, angle, size))
        whole = torch.stack(layers).mean(dim=0) if len(layers) > 1 else layers[0]
        cover = whole[3]
        if not (cover > 0.02).any():
            return 0
        colour = whole[:3] / cover.clamp(min=1e-3)
        if figure.shadow:
            self._cast(image, cover, top, left, figure.shadow)
        behind = image[:, top:bottom, left:right]
        if figure.alike and figure.tint is not None and figure.tint.shape[0] == 3:
            figure.tint = torch.cat((figure.tint, self._alike(figure, colour, cover, behind)))
        if figure.tint is not None:
            colour = colour * figure.tint[:3]
            if len(figure.tint) > 3:
                colour = colour * figure.tint[3:6] + figure.tint[6:9]
        colour = colour.clamp(0, 255) * light[:, top:bottom, left:right]
        behind += cover * (colour - behind)
        solid = (cover > 0.5).numpy()
        ids[top:bottom, left:right][solid] = figure.identity or 0
        return int(solid.sum())

    def _sampled(
        self,
        figure: Figure,
        time: float,
        across: Tensor,
        down: Tensor,
        window: tuple[int, int],
        angle: float,
        size: float,
    ) -> Tensor:
        """Colours times coverage and coverage 0..1, f32 `[4, *window]`, of a window with coarse places relative to the
        figure's centre.
        """
        cos, sin = float(np.cos(angle)) / size, float(np.sin(angle)) / size
        slim = float(np.cos(figure.turned.at(time)))
        u, v = (across * cos + down * sin) / slim, down * cos - across * sin
        u, v = (-u if figure.mirrored else u) / figure.half[0], v / figure.half[1]
        if figure.shape is None:
            # The thing itself ends before its picture does.
            inner = 1 + 2 * MARGIN
            u, v = (part / inner for part in figure.sway.warp(u * inner, v * inner, time))
        else:
            reach = np.float32(figure.shape.extent)
            straight = figure.shape.warp((u * reach).numpy(), (v * reach).numpy(), time)
            u, v = (torch.from_numpy(np.asarray(part / reach, np.float32)) for part in straight)
        u, v = fine(torch.stack((u, v)), window)
        grid = torch.stack((u, v), dim=-1)[None]
        whole = F.grid_sample(figure.image[None], grid, padding_mode="zeros", align_corners=False)[0]
        shade = 1 - figure.shade * ((v + 0.4) / 1.2).clamp(0, 1)
        if figure.shape is None:
            cover = whole[3] / 255
        else:
            reach = figure.shape.extent
            depth, part = figure.shape.inside((u * reach).numpy(), (v * reach).numpy(), time)
            cover = torch.from_numpy(np.clip(depth * np.float32(size * self.side / 1.5) + 0.5, 0, 1)).float()
            if figure.other is not None:
                limbs = F.grid_sample(figure.other[0][None], grid, padding_mode="zeros", align_corners=False)[0]
                whole = torch.where(torch.from_numpy(figure.other[1][part]), limbs, whole)
            if figure.shape.limbs:
                shade = shade * torch.from_numpy(figure.shape.tones[part]).float()
        return torch.cat((whole[:3] * (shade * cover), cover[None]))

    @staticmethod
    def _alike(figure: Figure, colour: Tensor, cover: Tensor, behind: Tensor) -> Tensor:
        """Factors and sums `[6, 1, 1]` that bring a figure's colours near those of what is behind it."""
        inside = cover > 0.5
        if inside.sum() < 16:
            return torch.cat((torch.ones(3, 1, 1), torch.zeros(3, 1, 1)))
        own, behind = (colour * figure.tint[:3])[:, inside], behind[:, inside]
        gain = (behind.std(dim=1) / own.std(dim=1).clamp(min=4)).clamp(0.5, 1.6)
        gain = 1 + figure.alike * (gain - 1)
        shift = (own.mean(dim=1) + figure.alike * (behind.mean(dim=1) - own.mean(dim=1))) - gain * own.mean(dim=1)
        return torch.cat((gain, shift)).view(6, 1, 1)

    def _cast(self, image: Tensor, cover: Tensor, top: int, left: int, dark: float) -> None:
        """Darkens the ground below a figure."""
        rows = torch.nonzero((cover > 0.5).any(dim=1))
        if not len(rows):
            return
        height, width = max(4, int(cover.shape[0] * 0.26)), cover.shape[1]
        # Coarse: a shadow has no fine edge, and a wide blur would take most of a frame's time.
        coarse = max(2, height // 6), max(2, width // 6)
        flat = F.interpolate(cover[None, None], coarse, mode="area")[0]
        flat = blurred(F.pad(flat, (0, 0, 1, 1)), 3)[None]
        soft = F.interpolate(flat, (height, width), mode="bilinear", align_corners=False)[0, 0]
        middle = top + int(rows[-1]) - soft.shape[0] // 2
        first, last = max(middle, 0), min(middle + soft.shape[0], self.side)
        if last > first:
            part = soft[first - middle : last - middle]
            image[:, first:last, left : left + width] *= 1 - dark * part


def varied_photo(random: np.random.Generator, side: int, frames: int) -> PhotoSettings:
    """Settings of a training clip."""
    return PhotoSettings(
        side=side,
        frames=frames,
        speed=float(np.exp(random.uniform(np.log(0.004), np.log(0.03)))),
        objects=(1, int(random.integers(2, 6))),
        radius=(0.07, float(random.uniform(0.28, 0.5))),
        at_home=float(random.uniform(0.2, 0.5)),
        same_kind=float(random.uniform(0.1, 0.7)),
        alike=float(random.uniform(0.1, 0.6)),
        meeting=float(random.uniform(0.2, 0.7)),
        crossing=float(random.uniform(0.1, 0.6)),
        shake=float(random.uniform(0, 0.006)),
        deform=float(random.uniform(0.3, 1.3)),
        noise=float(random.uniform(2, 12)),
    )


def make_photo_clip(seed: int, pack: Pack, settings: PhotoSettings | None = None) -> Clip:
    """The clip of a seed."""
    settings = settings or PhotoSettings()
    random = np.random.default_rng((seed, 31))
    side, count = settings.side, settings.frames
    first: list[Figure] = []
    if random.random() < settings.at_home:
        photograph, crop, mirrored, figure = _at_home(random, settings, pack)
        first.append(figure)
    else:
        photograph, crop, mirrored = _any(random, pack.photographs), _free_crop(random), bool(random.random() < 0.5)
    scene = Scene(random, photograph, crop, side, mirrored)
    figures = _figures(random, settings, pack, first)
    everything = figures + _occluders(random, settings, pack, figures)
    moving = random.random() < settings.camera
    camera = ShakyCamera(random, settings.speed if moving else 0.0, settings.shake if moving else 0.0, count)
    look = Look(random, settings)
    painter = Painter(scene)
    frames = np.empty((count, side, side, 3), np.uint8)
    ids = np.zeros((count, side, side), np.uint8)
    areas = np.zeros((count, len(figures) + 1), np.int32)
    for time in range(count):
        view = camera.at(time)
        image, light = scene.seen(view)
        for figure in everything:
            area = painter.paint(image, light, ids[time], figure, time, view)
            if figure.identity is not None:
                areas[time, figure.identity] = area
        frames[time] = look.finish(random, image.permute(1, 2, 0).numpy().copy(), time)
    return Clip(frames, ids, areas)
