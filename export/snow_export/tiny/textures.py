"""Textures for procedural clips: noise and patterns, and photographs that scikit-image and scikit-learn ship.

Every photograph is named here with its licence; `models/snow-tiny` repeats the list.
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
    """A photograph or a pattern, `[size, size, 3]` float32 in 0..255."""
    return photograph(random, size) if random.random() < 0.55 else procedural(random, size)


def coat(random: np.random.Generator, size: int) -> np.ndarray:
    """What an object wears: a texture, often of two kinds in patches, with dark and bright sides.

    Real things are not of one colour: what belongs together must be learned from shape and motion too.
    """
    image = texture(random, size)
    if random.random() < 0.4:
        patches = smooth_noise(random, size, int(random.integers(1, 5))) > random.uniform(-0.3, 0.3)
        image = np.where(patches[..., None], texture(random, size), image)
    if random.random() < 0.7:
        light = 1 + random.uniform(0.1, 0.6) * smooth_noise(random, size, int(random.integers(1, 6)))
        image = image * light[..., None].astype(np.float32)
    return np.clip(image, 0, 255)
