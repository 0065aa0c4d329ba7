"""Clips made of photographs: what they are made of, how that is cut, and how it moves."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from snow_export.errors import ExportError
from snow_export.tiny import cutting, make_photo_pack, photographs
from snow_export.tiny.batches import Clips
from snow_export.tiny.cutting import cheapest_cut, cut_out
from snow_export.tiny.make_photo_pack import filled, layer, make_pack, pieces
from snow_export.tiny.motion import Path as Way
from snow_export.tiny.photo_clips import Figure, Painter, PhotoSettings, make_photo_clip
from snow_export.tiny.photo_pack import MARGIN, Pack, Thing, load_pack
from snow_export.tiny.photo_scene import Scene, coarse_places, fine
from snow_export.tiny.qt_resources import read_resource
from snow_export.tiny.sway import Sway

SMALL = PhotoSettings(side=96, frames=4, noise=0.0)


def _wood(seed: int) -> np.ndarray:
    """A picture with something to see everywhere."""
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)


def _disc() -> Thing:
    """A red disc that fills the box of a thing's picture."""
    size, reach = 70, 1 + 2 * MARGIN
    down, across = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    image = np.zeros((size, size, 4), np.uint8)
    image[..., 0] = 200
    image[..., 3] = 255 * (np.hypot(down, across) < 1 / reach)
    return Thing(image, _wood(5), (0.2, 0.2, 0.8, 0.8))


@pytest.fixture(scope="module")
def pack() -> Pack:
    """A photograph, a thing and a piece."""
    return Pack([_wood(1), _wood(2)], [_disc()], [_disc()])


def test_every_photograph_is_named_with_a_licence_that_asks_for_no_licence():
    packages, found = photographs.table()
    assert len(found) == 77
    assert {entry.licence for entry in found} == {
        "public domain",
        "CC0 1.0",
        "CC BY 1.0",
        "CC BY 2.0",
        "CC BY 3.0",
        "CC BY 4.0",
        "BSD-3-Clause",
    }
    assert len({entry.name for entry in found}) == len({entry.sha256 for entry in found}) == len(found)
    assert all(entry.package in packages and entry.author for entry in found)
    assert all(0 <= box[0] < box[2] <= 100 and 0 <= box[1] < box[3] <= 100 for e in found for box in e.boxes)


def test_photographs_of_drawn_clips_are_not_held_out():
    # Drawn clips take textures from all that scikit-image and scikit-learn ship.
    found = photographs.table()[1]
    assert sum(entry.held_out for entry in found) == 20
    assert not any(entry.held_out for entry in found if entry.package.startswith("scikit"))


def test_a_photograph_that_is_another_is_refused(monkeypatch, tmp_path):
    packages, found = photographs.table()
    coffee = next(entry for entry in found if entry.name == "coffee")
    monkeypatch.setattr(photographs, "table", lambda: (packages, [coffee]))
    assert photographs.gather(tmp_path)["coffee"].shape == (400, 600, 3)
    other = photographs.Photograph(**(vars(coffee) | {"sha256": "0" * 64}))
    monkeypatch.setattr(photographs, "table", lambda: (packages, [other]))
    with pytest.raises(ExportError, match=r"coffee\.png.*another version"):
        photographs.gather(tmp_path)


def _archive(flags: int, stored: bytes) -> bytes:
    """A Qt resource archive of version 3 with `pictures/a.png`."""
    names, places = b"", {}
    for name in ("pictures", "a.png"):
        places[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)
    tree += struct.pack(">IHIIQ", places["pictures"], 2, 1, 2, 0)
    tree += struct.pack(">IHHHIQ", places["a.png"], flags, 0, 0, 0, 0)
    data = struct.pack(">I", len(stored)) + stored
    start = 24
    return (
        (b"qres" + struct.pack(">IIIII", 3, start, start + len(tree), start + len(tree) + len(data), 0))
        + tree
        + data
        + names
    )


def test_a_file_of_a_resource_archive_is_found_by_its_path():
    assert read_resource(_archive(0, b"plain"), "pictures/a.png") == b"plain"
    packed = struct.pack(">I", 6) + zlib.compress(b"packed")
    assert read_resource(_archive(1, packed), "pictures/a.png") == b"packed"
    with pytest.raises(KeyError, match=r"pictures/b\.png"):
        read_resource(_archive(0, b""), "pictures/b.png")
    with pytest.raises(KeyError, match="is a folder"):
        read_resource(_archive(0, b""), "pictures")
    with pytest.raises(ValueError, match="Zstandard"):
        read_resource(_archive(4, b""), "pictures/a.png")
    with pytest.raises(ValueError, match="qres"):
        read_resource(b"PNG", "a")


def test_the_cheapest_cut_parts_where_it_costs_least():
    # A chain of five: the first wants in, the last out, and one link costs less than the others.
    inside, outside = np.array([0.0, 1, 1, 1, 9]), np.array([9.0, 1, 1, 1, 0])
    low, high = np.arange(4), np.arange(1, 5)
    assert cheapest_cut(inside, outside, (low, high), np.array([5.0, 0.5, 5, 5])).tolist() == [True] * 2 + [False] * 3
    assert cheapest_cut(inside, outside, (low, high), np.array([5.0, 5, 5, 0.5])).tolist() == [True] * 4 + [False]


def test_a_thing_is_cut_out_of_its_box():
    random = np.random.default_rng(3)
    picture = np.clip(random.normal((60, 120, 70), 12, (160, 220, 3)), 0, 255)
    down, across = np.mgrid[:160, :220]
    disc = np.hypot(down - 80, across - 110) < 45
    picture[disc] = np.clip(random.normal((190, 90, 60), 12, (disc.sum(), 3)), 0, 255)
    picture = ndimage.gaussian_filter(picture, (1, 1, 0)).astype(np.uint8)
    found = cut_out(picture, (0.2, 0.15, 0.8, 0.85)) > 0.5
    # Superpixels of a small picture take a pixel or two from beyond its edge.
    assert (found & disc).sum() / disc.sum() > 0.98
    assert (found & disc).sum() / (found | disc).sum() > 0.9


def test_a_hole_is_painted_over_with_what_is_around():
    picture = np.full((64, 64, 3), 90, np.uint8)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    picture[hole] = (255, 0, 0)
    assert np.abs(filled(picture, hole).astype(int) - 90).max() <= 2


def test_a_layer_knows_where_it_was_and_keeps_no_old_background():
    picture = np.full((50, 100, 3), (0, 255, 0), np.uint8)
    cover = np.zeros((50, 100), np.float32)
    picture[10:30, 20:60] = (255, 0, 0)
    cover[10:30, 20:60] = 1
    cover[9, 20:60] = cover[30, 20:60] = 0.4
    image, box = layer(picture, cover, 400)
    margin = int(MARGIN * 40) + 2
    assert image.shape == (20 + 2 * margin, 40 + 2 * margin, 4)
    np.testing.assert_allclose(
        box, ((20 - margin) / 100, (10 - margin) / 50, (60 + margin) / 100, (30 + margin) / 50), atol=1e-6
    )
    assert (image[image[..., 3] > 0][:, :3] == (255, 0, 0)).all()


def test_pieces_are_regions_that_belong_together():
    picture = np.full((120, 160, 3), 40, np.uint8)
    picture[30:80, 40:90] = (220, 60, 60)
    found = pieces(picture, 6)
    assert len(found) == 1
    assert found[0][55, 65] == 1 and found[0][10, 10] == 0
    rows, columns = np.nonzero(found[0] > 0.5)
    assert all(abs(edge - at) <= 4 for edge, at in ((rows.min(), 30), (rows.max(), 79), (columns.min(), 40)))
    assert abs(columns.max() - 89) <= 4


def test_a_folder_of_cuttings_is_parted_by_photograph(monkeypatch, tmp_path):
    def entry(name: str, held_out: bool) -> photographs.Photograph:
        return photographs.Photograph(name, "p", "f", "a", "CC0 1.0", held_out, ((20, 15, 80, 85),), "0")

    random = np.random.default_rng(3)
    picture = np.clip(random.normal((60, 120, 70), 12, (80, 110, 3)), 0, 255)
    picture[20:60, 35:75] = (190, 90, 60)
    picture = picture.astype(np.uint8)
    other = picture[:, ::-1].copy()
    monkeypatch.setattr(make_photo_pack, "CUT_SIDE", 110)
    monkeypatch.setattr(cutting, "SUPERPIXELS", 400)
    monkeypatch.setattr(make_photo_pack, "gather", lambda cache: {"seen": picture, "kept": other})
    monkeypatch.setattr(make_photo_pack, "table", lambda: ({}, [entry("seen", False), entry("kept", True)]))
    make_pack(tmp_path / "pack", tmp_path)
    for held_out, name in ((False, "seen"), (True, "kept")):
        part = load_pack(tmp_path / "pack", held_out)
        assert len(part.photographs) == len(part.things) == 1
        np.testing.assert_array_equal(part.photographs[0], np.asarray(Image.open(tmp_path / "pack" / f"{name}.jpg")))
        assert part.things[0].image.shape[2] == 4


def test_a_photo_clip_is_a_function_of_its_seed(pack):
    first, again = make_photo_clip(7, pack, SMALL), make_photo_clip(7, pack, SMALL)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.ids, again.ids)
    other = make_photo_clip(8, pack, SMALL)
    assert (first.frames != other.frames).any()
    for clip in (first, other):
        assert clip.frames.shape == (4, 96, 96, 3) and clip.ids.max() <= clip.areas.shape[1] - 1
        assert (clip.seen()[:, 1:] <= clip.areas[:, 1:]).all()


def _figure(thing: Thing, **changes) -> Figure:
    random = np.random.default_rng(0)
    still = {axis: Way(random, at, 0.0, 0.0) for axis, at in (("x", 0.25), ("y", 0.5), ("turn", 0.0), ("scale", 0.0))}
    image = torch.from_numpy(thing.image).permute(2, 0, 1).float()
    figure = {
        "image": image,
        "half": (1 + 2 * MARGIN,) * 2,
        "radius": 0.125,
        "sway": Sway(random, 0.0),
        "turned": Way(random, 0.0, 0.0, 0.0),
        "shade": 0.0,
        "shadow": 0.0,
        "near": 0.0,
        "mirrored": False,
        "identity": 1,
    }
    return Figure(**(still | figure | changes))


def test_a_figure_is_painted_where_and_as_large_as_it_says():
    side = 128
    scene = Scene(np.random.default_rng(0), np.full((40, 40, 3), 50, np.uint8), (0.1, 0.1, 0.9, 0.9), side, False)
    scene.light, scene.parallax = None, 0.0
    image, light = scene.seen((1.0, 0.0, 0.0, 0.0))
    assert (image - 50).abs().max() < 0.01 and (light == 1).all()
    ids = np.zeros((side, side), np.uint8)
    area = Painter(scene).paint(image, light, ids, _figure(_disc()), 0, (1.0, 0.0, 0.0, 0.0))
    rows, columns = np.nonzero(ids)
    assert area == len(rows) and abs(area / (np.pi * 16**2) - 1) < 0.06
    assert abs(rows.mean() + 0.5 - 64) < 0.6 and abs(columns.mean() + 0.5 - 32) < 0.6
    assert image[0, 64, 32] == 200 and image[1, 64, 32] == 0
    # A camera that looks twice as near and aside sees it there, twice as large.
    image, light = scene.seen((2.0, 0.25, 0.0, 0.0))
    ids[:] = 0
    Painter(scene).paint(image, light, ids, _figure(_disc()), 0, (2.0, 0.25, 0.0, 0.0))
    rows, columns = np.nonzero(ids)
    assert abs(rows.mean() + 0.5 - 64) < 0.6 and abs(columns.mean() + 0.5 - 32) < 0.6
    assert abs(len(rows) / (np.pi * 32**2) - 1) < 0.06


def test_shade_and_shadow_darken_what_they_should():
    side = 128
    scene = Scene(np.random.default_rng(0), np.full((40, 40, 3), 50, np.uint8), (0.1, 0.1, 0.9, 0.9), side, False)
    scene.light, scene.parallax = None, 0.0
    view = (1.0, 0.0, 0.0, 0.0)
    image, light = scene.seen(view)
    ids = np.zeros((side, side), np.uint8)
    Painter(scene).paint(image, light, ids, _figure(_disc(), shade=0.5, shadow=0.6), 0, view)
    assert image[0, 52, 32] > image[0, 76, 32] > 90
    assert image[0, 81, 32] < 45 and abs(image[0, 64, 100] - 50) < 0.01
    assert ids[81, 32] == 0


def test_a_stiff_thing_does_not_sway_and_coarse_places_are_those_of_pixels():
    y, x = coarse_places(3, 64, 10, 70, 96)
    whole = fine(torch.stack((x, y)), (61, 60))
    torch.testing.assert_close(whole[0, 0], (torch.arange(10, 70) + 0.5) / 96 - 0.5)
    torch.testing.assert_close(whole[1, :, 0], (torch.arange(3, 64) + 0.5) / 96 - 0.5)
    u, v = Sway(np.random.default_rng(1), 0.0).warp(x, y, 5.0)
    torch.testing.assert_close((u, v), (x, y))
    moved = [Sway(np.random.default_rng(seed), 1.0).warp(x, y, 5.0)[0] for seed in range(8)]
    assert any((u - x).abs().max() > 0.05 for u in moved)


def test_a_share_of_training_clips_is_made_of_photographs(monkeypatch, pack):
    asked = []
    clip = make_photo_clip(1, pack, PhotoSettings(side=32, frames=1))
    monkeypatch.setattr("snow_export.tiny.batches._cuttings", lambda folder: pack)

    def photo_clip(seed: int, cuttings: Pack, settings: PhotoSettings):
        assert cuttings is pack
        asked.append("photographs")
        return clip

    def drawn_clip(seed: int, settings):
        asked.append((seed, settings))
        return clip

    monkeypatch.setattr("snow_export.tiny.batches.make_photo_clip", photo_clip)
    monkeypatch.setattr("snow_export.tiny.batches.make_clip", drawn_clip)
    for share in (0.0, 0.5):
        for number in range(40):
            Clips(3, photographed=share)[number]
    plain, mixed = asked[:40], asked[40:]
    assert "photographs" not in plain
    assert 12 <= mixed.count("photographs") <= 28
    # The clips that stay drawn are those that they were.
    assert all(one == other for one, other in zip(plain, mixed, strict=True) if other != "photographs")
