"""Figures of a detector on held-out pictures with captions: `python -m snow_export.tiny.evaluate_detector`.

Two engines answer: `--checkpoint` is the unpatched reference, `--bundle` is `snow-ort detect`. Each picture is asked
for two captions that are true of something in it, one of the set that is not, and one that is a word off the truth.
Average precision is over all pairs of picture and caption at once, candidates in the order of their scores, an object
found if its mask overlaps by half (AP50, area under the interpolated curve); the hardest captions, those a word off,
count in a figure of their own. As with the tracker's held-out clips, an object is asked for if most of it shows
(`heldout.FAIR_SHARE`, `FAIR_AREA`); to find one of the others counts neither for nor against, but one figure counts all
that can be made out. Of captions that are true of nothing, the share without any object is given.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file
from tqdm import tqdm

from .. import reference_detector
from .captioned import LEAST_SEEN, captioned
from .captions import Caption, absent, draw, elsewhere
from .clips import SEEDS, make_clip
from .evaluate import region
from .heldout import SOURCE_SIDE, fair_objects

# Candidates below are not worth a mask: the curve ends there.
LEAST_SCORE = 0.02


@dataclass
class Picture:
    """`image` u8 `[h, w, 3]`; `ids` u8 `[h, w]`; for each caption the ids of what it means, and whether it is a word
    off the truth; ids of the objects that are `fair` to ask for.
    """

    image: np.ndarray
    ids: np.ndarray
    captions: list[Caption]
    wanted: list[list[int]]
    near: list[bool]
    fair: set[int]


def pictures(count: int, split: str = "held-out") -> Iterator[Picture]:
    """Pictures that no training has seen: the last frames of captioned clips of a split's first seeds."""
    for seed in range(SEEDS[split][0], SEEDS[split][0] + count):
        random = np.random.default_rng((seed, 5))
        clip = make_clip(seed, captioned(random, SOURCE_SIDE, 2))
        ids, looks = clip.ids[-1], clip.looks or []
        visible = [o for o in range(len(looks)) if (ids == o + 1).sum() >= LEAST_SEEN * ids.size]
        asked = [draw(random, looks, visible, 0.0) for _ in range(2)] if visible else []
        asked += [caption for caption in (elsewhere(random, looks), absent(random, looks, foreign=0.0)) if caption]
        near = [index >= len(asked) - 1 for index in range(len(asked))]
        wanted = [[o + 1 for o in visible if caption.matches(looks[o])] for caption in asked]
        fair = set(fair_objects(clip, len(clip.ids) - 1))
        yield Picture(clip.frames[-1], ids, asked, wanted, near, fair)


class Reference:
    """`Sam3Model` as transformers has it."""

    def __init__(self, checkpoint: Path, side: int):
        self.model = reference_detector.load_detector(str(checkpoint), side)
        self.processor = reference_detector.load_processor(str(checkpoint), side, [0.5] * 3, [0.5] * 3)

    @torch.inference_mode()
    def inputs(self, picture: Picture, captions: list[Caption]) -> Iterator[dict]:
        """What the model takes for each caption; the picture itself goes through the backbone once."""
        seen = None
        for caption in captions:
            inputs = reference_detector.inputs_for(self.processor, picture.image, caption.text, [])
            pixels = inputs.pop("pixel_values")
            seen = seen or self.model.get_vision_features(pixel_values=pixels)
            yield inputs | {"vision_embeds": seen}

    @torch.inference_mode()
    def detect(self, picture: Picture) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each caption: scores `[n]` and masks bool `[n, h, w]` at the picture's size."""
        answers = []
        for inputs in self.inputs(picture, picture.captions):
            output = reference_detector.detect(self.model, inputs)
            scores = output["scores"]
            kept = scores >= LEAST_SCORE
            answers.append((scores[kept].numpy(), _at_size(output["mask_logits"][kept], picture.ids.shape)))
        return answers


class Onnx:
    """`snow-ort detect` on a bundle."""

    def __init__(self, program: Path, bundle: Path):
        self.program, self.bundle = program, bundle

    def detect(self, picture: Picture) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `Reference.detect`."""
        answers = []
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "picture.png"
            Image.fromarray(picture.image).save(path)
            texts = list(dict.fromkeys(caption.text for caption in picture.captions))
            command = [self.program, "detect", path, "--model", self.bundle, "--threshold", LEAST_SCORE, "--quiet"]
            command += [word for text in texts for word in ("--text", text)]
            command += ["--out", Path(work) / "out", "--dump-logits", Path(work) / "logits"]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
            found = load_file(next((Path(work) / "logits").glob("*.safetensors")))
            for caption in picture.captions:
                mine = found["text_index"] == texts.index(caption.text)
                logits = torch.from_numpy(found["mask_logits"][mine])
                answers.append((found["scores"][mine], _at_size(logits, picture.ids.shape)))
        return answers


def _at_size(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Logits `[n, h, w]` to masks bool `[n, *size]`."""
    if not len(logits):
        return np.zeros((0, *size), bool)
    return (F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0] > 0).numpy()


class Tally:
    """Candidates of many pairs, right or wrong."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.right: list[bool] = []
        self.objects = 0

    def add(
        self, scores: np.ndarray, masks: np.ndarray, truth: list[np.ndarray], fair: list[bool] | None = None
    ) -> None:
        """One pair; each object is found once, by the highest score. What finds an object that is not `fair` is left
        out, as is the object.
        """
        fair = fair or [True] * len(truth)
        self.objects += sum(fair)
        free = sorted(range(len(truth)), key=lambda o: not fair[o])
        for index in np.argsort(-scores, kind="stable"):
            overlaps = [region(masks[index], truth[o]) for o in free]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= 0.5
            if hit and not fair[free.pop(best)]:
                continue
            self.scores.append(float(scores[index]))
            self.right.append(hit)

    def average_precision(self) -> float:
        """Area under the interpolated curve of precision over recall."""
        order = np.argsort(-np.array(self.scores), kind="stable")
        right = np.array(self.right)[order]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        return float((precision * right).sum() / max(self.objects, 1))


def figures(engine: Reference | Onnx, count: int, threshold: float) -> dict[str, float | int]:
    """AP50 overall and by what captions speak of, and how captions that are true of nothing fared."""
    names = ("captions", "all_that_shows", "object", "shape", "colour", "pattern", "with_a_word_off")
    tallies = {name: Tally() for name in names}
    quiet: dict[bool, list[bool]] = {False: [], True: []}
    hits, said = [], []
    for picture in tqdm(pictures(count), total=count, desc="pictures"):
        rows = zip(picture.captions, picture.wanted, picture.near, engine.detect(picture), strict=True)
        for caption, wanted, near, (scores, masks) in rows:
            truth, fair = [picture.ids == o for o in wanted], [o in picture.fair for o in wanted]
            kept = masks[scores >= threshold]
            if not wanted:
                quiet[near].append(not len(kept))
            else:
                hits += [any(region(m, t) >= 0.5 for m in kept) for t, asked in zip(truth, fair, strict=True) if asked]
                said += [any(region(m, t) >= 0.5 for t in truth) for m in kept]
            tallies["with_a_word_off"].add(scores, masks, truth, fair)
            if near:
                continue
            tallies["all_that_shows"].add(scores, masks, truth)
            named = [name for name in ("shape", "colour", "pattern") if getattr(caption, name)]
            for name in ["captions", *(named or ["object"])]:
                tallies[name].add(scores, masks, truth, fair)
    result = {"pictures": count, "objects": tallies["captions"].objects}
    result |= {f"ap50_{name}": tally.average_precision() for name, tally in tallies.items()}
    for near, name in ((False, "absent"), (True, "word_off")):
        result |= {f"{name}_captions": len(quiet[near]), f"{name}_without_object": float(np.mean(quiet[near]))}
    return result | {"recall_at_threshold": float(np.mean(hits)), "precision_at_threshold": float(np.mean(said))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="run the reference on this checkpoint")
    parser.add_argument("--side", type=int, default=336, help="pixels, for --checkpoint")
    parser.add_argument("--bundle", type=Path, help="run snow-ort on this bundle")
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--pictures", type=int, default=250)
    parser.add_argument("--threshold", type=float, default=0.5, help="score from which something is an object")
    arguments = parser.parse_args()
    if bool(arguments.checkpoint) == bool(arguments.bundle):
        parser.error("give either --checkpoint or --bundle")
    if arguments.checkpoint:
        engine = Reference(arguments.checkpoint, arguments.side)
    else:
        engine = Onnx(arguments.program, arguments.bundle)
    result = figures(engine, arguments.pictures, arguments.threshold)
    print(json.dumps({key: round(value, 4) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
