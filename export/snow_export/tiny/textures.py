"""Textures for procedural clips: noise, patterns, surfaces as nature has them, and photographs.

The photographs are those that scikit-image and scikit-learn ship. Each is named here with its licence;
`models/snow-tiny` repeats the list.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

# File inside the package -> author and licence, as the packages state them.
PHOTOGRAPHS = {
    "skimage/data/astronaut.png": "NASA, public domain",
    "skimage/data/brick.png": "CC0Textures, CC0",
    "skimage/data/chelsea.png": "Stefan van der Walt, CC0",
    "skimage/data/coffee.png": "Rachel Michetti (Pikolo Espresso Bar), CC0",
    "skimage/data/grass.png": "CC0Textures, CC0",
    "skimage/data/gravel.png": "CC0Textures, CC0",
    "skimage/data/hubble_deep_field.jpg": "NASA, public domain",
    "skimage/data/rocket.jpg": "SpaceX, CC0",
    "sklearn/datasets/images/china.jpg": "danielbuechele, CC BY 2.0",
    "sklearn/datasets/images/flower.jpg": "vultilion, CC BY 2.0",
}


@cache
def photographs() -> list[np.ndarray]:
    """The photographs as `[h, w, 3]` float32 in 0..255; an `ImportError` names the package that is missing."""
    images = []
    for name in PHOTOGRAPHS:
        package, _, rest = name.partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"{package} is not installed; it ships photographs that the clips are made of")
        path = Path(spec.submodule_search_locations[0]) / rest
        images.append(np.asarray(Image.open(path).convert("RGB"), np.float32))
    return images


def smooth_noise(random: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """`[size, size]` noise of about `cells` blobs a side, in -1..1."""
    coarse = random.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.BICUBIC), np.float32)


def fractal(random: np.random.Generator, size: int, stretch: float = 1.0) -> np.ndarray:
    """`[size, size]` noise whose detail falls off as in photographs of nature, in 0..1; `stretch` > 1 draws streaks."""
    total = np.zeros((size, size), np.float32)
    roughness, cells = random.uniform(0.45, 0.8), random.uniform(2, 5)
    weight = 1.0
    while cells < size / 2:
        shape = (int(cells) + 2, max(int(cells / stretch), 1) + 2)
        coarse = random.uniform(-1, 1, shape).astype(np.float32)
        total += np.float32(weight) * np.asarray(Image.fromarray(coarse).resize((size, size), Image.BICUBIC))
        weight *= roughness
        cells *= 2
    low, high = np.percentile(total[::4, ::4], (2, 98))
    return np.clip((total - low) / max(high - low, 1e-3), 0, 1)


def stones(random: np.random.Generator, size: int) -> np.ndarray:
    """`[size, size]` cells of different tone with dark seams, in 0..1: pebbles, tiles, masonry."""
    count, coarse = int(random.integers(8, 90)), min(size, 128)
    places = random.uniform(-0.1, 1.1, (count, 2)).astype(np.float32)
    y, x = (np.mgrid[:coarse, :coarse].astype(np.float32) + 0.5) / coarse
    squeeze = np.float32(random.uniform(1, 2.5))
    distance = (x[..., None] - places[:, 0]) ** 2 + squeeze * (y[..., None] - places[:, 1]) ** 2
    nearest, second = np.sqrt(np.partition(distance, 1, axis=2)[..., :2]).transpose(2, 0, 1)
    tones = random.uniform(0.35, 1, count).astype(np.float32)[distance.argmin(axis=2)]
    seam = np.clip((second - nearest) * count**0.5 * random.uniform(2, 8), random.uniform(0.1, 0.8), 1)
    return np.asarray(Image.fromarray(tones * seam).resize((size, size), Image.BILINEAR), np.float32)


def natural(random: np.random.Generator, size: int) -> np.ndarray:
    """Fur, bark, rock, gravel, cloud: noise or cells through a ramp of related colours, `[size, size, 3]` in 0..255."""
    kind = random.integers(3)
    if kind == 0:
        mix = fractal(random, size)
    elif kind == 1:
        mix = fractal(random, size, random.uniform(3, 10))
        mix = mix.T if random.random() < 0.5 else mix
    else:
        mix = stones(random, size) * (0.6 + 0.4 * fractal(random, size))
    base = random.uniform(20, 235, 3)
    ramp = np.stack([base * random.uniform(0.1, 0.6), base, base + random.uniform(0, 120)])
    ramp = np.clip(ramp + random.normal(0, 12, (3, 3)), 0, 255).astype(np.float32)
    steps = np.linspace(0, 1, 3)
    return np.stack([np.interp(mix, steps, ramp[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def procedural(random: np.random.Generator, size: int) -> np.ndarray:
    """A pattern in two or three colours, `[size, size, 3]` float32 in 0..255."""
    first, second, third = random.uniform(0, 255, (3, 3)).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle, frequency = random.uniform(0, np.pi), random.uniform(3, 24)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = random.integers(6)
    if kind == 0:
        mix = np.sin(2 * np.pi * frequency * along) > random.uniform(-0.6, 0.6)
    elif kind == 1:
        mix = (np.floor(along * frequency) + np.floor(across * frequency)) % 2
    elif kind == 2:
        mix = np.hypot((along * frequency) % 1 - 0.5, (across * frequency) % 1 - 0.5) < random.uniform(0.2, 0.45)
    elif kind == 3:
        mix = 0.5 + 0.5 * along / max(float(np.abs(along).max()), 1e-3)
    elif kind == 4:
        mix = 0.5 + 0.5 * smooth_noise(random, size, int(random.integers(3, 24)))
    else:
        mix = np.full((size, size), random.uniform(0, 1))
    mix = np.clip(mix, 0, 1).astype(np.float32)[..., None]
    image = first * mix + second * (1 - mix)
    grain = smooth_noise(random, size, int(random.integers(2, 40)))[..., None]
    return np.clip(image + random.uniform(0, 0.25) * grain * (third - 128), 0, 255).astype(np.float32)


def photograph(random: np.random.Generator, size: int) -> np.ndarray:
    """A piece of a photograph, flipped and recoloured, `[size, size, 3]` float32 in 0..255."""
    images = photographs()
    image = images[random.integers(len(images))]
    side = int(random.uniform(0.25, 1.0) * min(image.shape[:2]))
    top, left = (int(random.integers(length - side + 1)) for length in image.shape[:2])
    piece = Image.fromarray(image[top : top + side, left : left + side].astype(np.uint8))
    piece = np.asarray(piece.resize((size, size), Image.BILINEAR), np.float32)
    if random.random() < 0.5:
        piece = piece[:, ::-1]
    piece = piece[..., random.permutation(3)] if random.random() < 0.5 else piece
    return np.clip((piece - 128) * random.uniform(0.6, 1.3) + 128 + random.uniform(-40, 40, 3), 0, 255).astype(
        np.float32
    )


def texture(random: np.random.Generator, size: int) -> np.ndarray:
    """A photograph, a pattern or something like nature's surfaces, `[size, size, 3]` float32 in 0..255."""
    make = (photograph, natural, procedural)[random.choice(3, p=(0.4, 0.35, 0.25))]
    return make(random, size)


def coat(random: np.random.Generator, size: int) -> np.ndarray:
    """What an object wears: a texture, often of two kinds in patches, with dark and bright sides.

    Real things are not of one colour: what belongs together must be learned from shape and motion too.
    """
    image = texture(random, size)
    if random.random() < 0.4:
        patches = smooth_noise(random, size, int(random.integers(1, 5))) > random.uniform(-0.3, 0.3)
        image = np.where(patches[..., None], texture(random, size), image)
    if random.random() < 0.7:
        light = 1 + random.uniform(0.1, 0.7) * smooth_noise(random, size, int(random.integers(1, 6)))
        image = image * light[..., None].astype(np.float32)
    return np.clip(image, 0, 255)


def scenery(random: np.random.Generator, size: int) -> np.ndarray:
    """A background, `[size, size, 3]` float32 in 0..255: one texture or several regions, under uneven light."""
    image = texture(random, size)
    for _ in range(int(random.choice(4, p=(0.35, 0.3, 0.2, 0.15)))):
        y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        angle = random.uniform(0, 6.3)
        height = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - np.float32(random.uniform(-0.2, 0.35))
        height += np.float32(random.uniform(0, 0.25)) * smooth_noise(random, size, int(random.integers(2, 9)))
        cover = np.clip(height * size / random.uniform(1, 4) + 0.5, 0, 1)[..., None]
        image = image + cover * (texture(random, size) - image)
    if random.random() < 0.6:
        light = 1 + random.uniform(0.1, 0.6) * smooth_noise(random, size, int(random.integers(1, 6)))
        image = image * light[..., None].astype(np.float32)
    return np.clip(image, 0, 255)
