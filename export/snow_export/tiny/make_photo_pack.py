"""What photo clips are made of, cut once and kept in a folder: `python -m snow_export.tiny.make_photo_pack`.

The folder holds photographs no larger than clips need, things cut out of them, pieces of them (regions that belong
together by colour and edges), and each photograph as it would be without a thing. `index.json` names them.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from .cutting import CUT_SIDE, cut_out
from .photo_pack import DEFAULT, MARGIN
from .photographs import gather, table

# Longest side of a photograph, of a thing and of a piece, in pixels.
PHOTO_SIDE, THING_SIDE, PIECE_SIDE = 1000, 400, 260
PIECES = 6
# A piece covers between these shares of its photograph, and this much of the box around it.
PIECE_AREA, PIECE_FILL = (0.008, 0.2), 0.4


def filled(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """u8 `[h, w, 3]` with the bool `[h, w]` hole painted over: the colours around it, blurred the further in the more,
    and the grain of what lies beside it.
    """
    image, known = picture.astype(np.float32), (~hole).astype(np.float32)
    levels = [(image * known[..., None], known)]
    while min(levels[-1][1].shape) > 3:
        colour, weight = levels[-1]
        height, width = (length // 2 * 2 for length in weight.shape)
        colour = colour[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
        weight = weight[:height, :width].reshape(height // 2, 2, width // 2, 2).sum(axis=(1, 3))
        full = np.maximum(weight, 1)
        levels.append((colour / full[..., None], weight / full))
    smooth = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)[..., None]
    for colour, weight in reversed(levels[:-1]):
        larger = [Image.fromarray(smooth[..., c]).resize(weight.shape[::-1], Image.BILINEAR) for c in range(3)]
        smooth = colour + np.stack([np.asarray(part) for part in larger], axis=-1) * (1 - weight)[..., None]
    columns = np.flatnonzero(hole.any(axis=0))
    step = int(columns[-1] - columns[0]) + 1 if len(columns) else 0
    image = np.where(hole[..., None], smooth, image)
    grain = image - ndimage.gaussian_filter(image, (6, 6, 0))
    there = np.roll(grain, step, axis=1)
    there[np.roll(hole, step, axis=1)] = 0
    soft = ndimage.gaussian_filter(hole.astype(np.float32), 2)[..., None]
    soft = np.maximum(soft, hole[..., None])
    return np.clip(image * (1 - soft) + (smooth + there) * soft, 0, 255).astype(np.uint8)


def layer(picture: np.ndarray, cover: np.ndarray, longest: int) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A thing as u8 `[h, w, 4]` with clear pixels around, and the box that this is of the picture, in shares.

    What lies under the thing's soft edge takes the colours of the thing, so that no old background shows there.
    """
    rows, columns = np.nonzero(cover > 0.5)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    margin = int(MARGIN * max(bottom - top, right - left)) + 2
    solid = ndimage.binary_erosion(cover > 0.9, iterations=1)
    if not solid.any():
        solid = cover > 0.5
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    colours = picture[nearest[0], nearest[1]]
    whole = np.dstack([colours, np.round(cover * 255).astype(np.uint8)])
    whole = np.pad(whole, ((margin, margin), (margin, margin), (0, 0)), "edge")
    whole[:margin, :, 3] = whole[-margin:, :, 3] = whole[:, :margin, 3] = whole[:, -margin:, 3] = 0
    cut = whole[top : bottom + 2 * margin, left : right + 2 * margin]
    height, width = picture.shape[:2]
    box = (left - margin) / width, (top - margin) / height, (right + margin) / width, (bottom + margin) / height
    image = Image.fromarray(cut)
    image.thumbnail((longest, longest), Image.LANCZOS)
    return np.asarray(image), tuple(float(value) for value in box)


def pieces(picture: np.ndarray, most: int) -> list[np.ndarray]:
    """Coverage f32 `[h, w]` of up to `most` regions of a photograph, the ones of an even size first."""
    found, height, width = [], *picture.shape[:2]
    for scale in (150, 400, 1000):
        parts = felzenszwalb(picture, scale=scale, sigma=1.0, min_size=int(PIECE_AREA[0] * height * width))
        for part, where in enumerate(ndimage.find_objects(parts + 1)):
            inside = ndimage.binary_fill_holes(parts[where] == part)
            area = inside.sum() / (height * width)
            if not PIECE_AREA[0] < area < PIECE_AREA[1] or inside.mean() < PIECE_FILL:
                continue
            mask = np.zeros((height, width), np.float32)
            mask[where] = inside
            border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
            if border > 0.5 * mask.sum() ** 0.5:
                continue
            if all((np.minimum(mask, other).sum() / np.maximum(mask, other).sum()) < 0.5 for other in found):
                found.append(mask)
    found.sort(key=lambda mask: -mask.sum())
    return [np.clip(ndimage.gaussian_filter(mask, 1.2) * 2 - 0.6, 0, 1) for mask in found[:most]]


def _resized(picture: np.ndarray, longest: int, grow: bool = False) -> np.ndarray:
    scale = longest / max(picture.shape[:2])
    if scale >= 1 and not grow:
        return picture
    size = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
    return np.asarray(Image.fromarray(picture).resize(size, Image.LANCZOS))


def make_pack(folder: Path, cache: Path) -> None:
    """Writes the folder, under its final name only when it is whole."""
    photographs = gather(cache)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    index = []
    for entry in table()[1]:
        picture = photographs[entry.name]
        Image.fromarray(_resized(picture, PHOTO_SIDE)).save(partial / f"{entry.name}.jpg", quality=93)
        small, record = _resized(picture, CUT_SIDE, grow=True), {"name": entry.name, "held_out": entry.held_out}
        things: list[dict] = []
        for number, box in enumerate(entry.boxes):
            cover = cut_out(small, tuple(value / 100 for value in box))
            if (cover > 0.5).mean() < 0.002:
                continue
            image, around = layer(small, cover, THING_SIDE)
            stem = f"{entry.name}-thing-{number}"
            Image.fromarray(image).save(partial / f"{stem}.webp", lossless=True)
            behind = filled(small, ndimage.binary_dilation(cover > 0.05, iterations=3))
            Image.fromarray(behind).save(partial / f"{stem}-behind.jpg", quality=93)
            things.append({"file": f"{stem}.webp", "behind": f"{stem}-behind.jpg", "box": around})
        record |= {"things": things, "pieces": []}
        for number, cover in enumerate(pieces(small, PIECES)):
            name = f"{entry.name}-piece-{number}.webp"
            Image.fromarray(layer(small, cover, PIECE_SIDE)[0]).save(partial / name, quality=92, exact=True)
            record["pieces"].append(name)
        index.append(record)
    (partial / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def pack_at(folder: Path = DEFAULT) -> Path:
    """The folder, made if it is missing; packages are kept beside it."""
    if not (folder / "index.json").exists():
        make_pack(folder, folder.with_name(folder.name + "-packages"))
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--cache", type=Path, help="folder for the packages; beside --out by default")
    arguments = parser.parse_args()
    make_pack(arguments.out, arguments.cache or arguments.out.with_name(arguments.out.name + "-packages"))
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{arguments.out}: {len(list(arguments.out.iterdir()))} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
