"""`snow-ort run` against the unpatched reference: the same checkpoint, the same frames, the same prompts."""

import subprocess

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from snow_export.compare import compare, objects_differ
from workshop import ROOT

BOXES = [
    [200, 110, 520, 400],
    [30, 40, 180, 200],
    [560, 80, 800, 300],
    [300, 20, 420, 160],
    [60, 250, 260, 460],
    [600, 320, 840, 470],
    [420, 200, 640, 460],
    [10, 10, 840, 470],
    [360, 150, 460, 240],
]
BOX, POINT = (
    {"frame": 0, "object": 1, "box": BOXES[0]},
    {"frame": 0, "object": 2, "points": [[640, 200, 1]]},
)
MASK = {"frame": 0, "object": 3, "mask": "mask-854x480.png"}
POINTS = {
    "frame": 0,
    "object": 4,
    "points": [[100, 120, 1], [300, 60, 0], [160, 180, 1]],
}
BOTH = {"frame": 0, "object": 5, "box": BOXES[4], "points": [[150, 350, 1]]}

# Name -> frames, prompts.
CASES = {
    "box": (25, [BOX]),
    "short": (6, [BOX, POINT]),
    "kinds": (25, [BOX, POINT, MASK, POINTS, BOTH]),
    "nine": (
        12,
        [{"frame": 0, "object": i + 1, "box": box} for i, box in enumerate(BOXES)],
    ),
    "refined": (
        20,
        [
            BOX,
            POINT,
            {"frame": 9, "object": 1, "points": [[330, 240, 1], [600, 90, 0]]},
        ],
    ),
    "late": (22, [BOX, {"frame": 7, "object": 2, "box": BOXES[2]}]),
    "conditioned": (
        26,
        [BOX, POINT]
        + [{"frame": frame, "object": 1, "box": BOXES[(frame // 3) % 9]} for frame in (3, 5, 9, 12, 18)]
        + [{"frame": 12, "object": 2, "mask": "mask-854x480.png"}],
    ),
}


def write_mask(folder) -> None:
    """The mask that prompts name: an off-centre ellipse with a hole, one value."""
    path = folder / "mask-854x480.png"
    if not path.exists():
        y, x = np.mgrid[:480, :854]
        inside = ((x - 500) / 190) ** 2 + ((y - 260) / 120) ** 2 < 1
        inside &= (x - 460) ** 2 + (y - 250) ** 2 > 45**2
        Image.fromarray((inside * 255).astype(np.uint8)).save(path)


def check(workshop, name, seed, size, resolution, precision="fp32", score_bias=8.0):
    """One case from checkpoint to comparison."""
    frames, entries = CASES[name]
    write_mask(workshop.folder)
    checkpoint = workshop.checkpoint(seed, size, score_bias)
    clip, prompts = workshop.clip(frames), workshop.prompts(name, entries)
    reference = workshop.reference(checkpoint, clip, prompts, resolution)
    bundle = workshop.bundle(checkpoint, resolution, precision)
    run = workshop.run(bundle, clip, prompts, f"{bundle.name}-{name}")
    result = compare(run, reference)
    print(f"\n{name} at {resolution} px, {precision}: {result.summary()}")
    return result, reference


@pytest.mark.parametrize("name", CASES)
def test_follows_the_reference(workshop, name):
    result, reference = check(workshop, name, seed=1, size=112, resolution=112)
    assert result.passes(), result.summary()
    # The comparison says nothing if masks are empty or full, or if the objects are one.
    assert 0.02 < np.mean(result.positive) < 0.98
    assert name == "box" or objects_differ(reference) > 0.1


def test_another_resolution_of_the_checkpoint(workshop):
    """154 px is a grid of 11 that the windows of 4 do not tile."""
    result, _ = check(workshop, "kinds", seed=1, size=112, resolution=154)
    assert result.passes(), result.summary()


def test_a_video_file(workshop):
    """The program decodes a file; the reference gets the frames that the ffmpeg command decodes from it."""
    prompts = workshop.prompts(
        "video",
        [
            {"frame": 0, "object": 3, "box": [20, 20, 60, 60]},
            {"frame": 2, "object": 1, "points": [[120, 62, 1]]},
        ],
    )
    folder = workshop.synthetic(20)
    video, decoded = (
        workshop.folder / "synthetic.mp4",
        workshop.folder / "synthetic-decoded",
    )
    if not decoded.exists():
        decoded.mkdir()
        encode = [
            "-framerate",
            "12",
            "-i",
            folder / "%05d.png",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            video,
        ]
        for arguments in (
            encode,
            ["-i", video, "-start_number", "0", decoded / "%05d.png"],
        ):
            subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *map(str, arguments)], check=True)
    checkpoint = workshop.checkpoint(1)
    reference = workshop.reference(checkpoint, decoded, prompts, 112)
    result = compare(
        workshop.run(workshop.bundle(checkpoint, 112), video, prompts, "video"),
        reference,
    )
    print(f"\nvideo: {result.summary()}")
    assert len(result.frames) == 20
    assert result.passes(), result.summary()


def test_an_object_that_disappears(workshop):
    result, _ = check(workshop, "kinds", seed=4, size=112, resolution=112, score_bias=3.0)
    assert result.lost > 0, "no object was ever absent; choose another seed"
    assert result.lost < 5 * 25, "no object was ever there; choose another seed"
    assert result.passes(), result.summary()


def test_half_precision(workshop):
    result, _ = check(workshop, "kinds", seed=1, size=112, resolution=112, precision="fp16")
    assert result.mean_iou >= 0.98


def test_int8_on_trained_weights(workshop):
    """Random weights say nothing here: their logits have no clear sign for rounding to leave alone."""
    checkpoint = ROOT / "models" / "snow-tiny" / "checkpoint"
    clip, prompts = ROOT / "demo" / "clip.mp4", ROOT / "demo" / "prompts.json"
    runs = [
        # With the detector, as another test needs them: an export takes longer than the run.
        workshop.run(
            workshop.bundle(checkpoint, 224, precision, "tracker,detector"), clip, prompts, f"trained-{precision}"
        )
        for precision in ("int8", "fp32")
    ]
    result = compare(*runs)
    assert len(result.frames) == 72
    assert result.mean_iou >= 0.97, result.summary()
    assert max(result.relative_l2) > 1e-4, "nothing was rounded"


@pytest.mark.parametrize("chunk", ["1", "2", "64"])
def test_chunks_change_nothing(workshop, chunk):
    frames, entries = CASES["nine"]
    checkpoint = workshop.checkpoint(1)
    clip, prompts = workshop.clip(frames), workshop.prompts("nine", entries)
    bundle = workshop.bundle(checkpoint, 112)
    run = workshop.run(bundle, clip, prompts, f"chunk-{chunk}", "--chunk", chunk)
    result = compare(run, workshop.reference(checkpoint, clip, prompts, 112))
    assert result.passes(), result.summary()


# Each falsifies one input of the tracker; what stays within the tolerance would not have been noticed.
@pytest.mark.parametrize(
    "how",
    [
        "dropped-memory",
        "shifted-memory-time",
        "shifted-pointer-time",
        "no-pointers",
        "stale-features",
    ],
)
def test_the_comparison_is_sharp(workshop, how):
    frames, entries = CASES["box"]
    checkpoint = workshop.checkpoint(1)
    clip, prompts = workshop.clip(frames), workshop.prompts("box", entries)
    reference = workshop.reference(checkpoint, clip, prompts, 112)
    bundle = workshop.bundle(checkpoint, 112)
    honest = compare(workshop.tampered(bundle, clip, prompts, "honest"), reference)
    assert honest.passes(), honest.summary()
    false = compare(workshop.tampered(bundle, clip, prompts, how), reference)
    print(f"\n{how}: {false.summary()}")
    assert not false.passes(), f"{how} went unnoticed"


def test_the_preprocessed_image(workshop):
    """The image that the graphs get, normalised, against the reference's processor."""
    from snow_export.reference import load_processor, read_frames

    clip = workshop.clip(2)
    for resolution in (112, 336, 1008):
        dump = workshop.tampered(
            workshop.bundle(workshop.checkpoint(1), 112),
            clip,
            clip,
            f"image-{resolution}",
        )
        got = load_file(dump / "image.safetensors")["image"].astype(np.float32)
        processor = load_processor(resolution, [0.5] * 3, [0.5] * 3)
        frames = read_frames(clip, 1)
        wanted = processor.video_processor(videos=frames, return_tensors="pt").pixel_values_videos[0, 0]
        wanted = (wanted.permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255
        off = np.abs(got - wanted)
        print(f"\n{resolution} px: {np.mean(off > 0.5):.2e} of values differ, by at most {off.max():.2f}/255")
        assert np.mean(off <= 1.001) >= 0.999
