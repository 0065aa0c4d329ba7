"""Runs the unpatched reference on a clip and writes what it predicts: `python -m snow_export.reference`.

It uses nothing of the export but this file, so that what it writes is the library's word and nobody else's. The order
of calls is that of a clip that arrives frame by frame: the prompts of a frame are given when the frame is reached, the
model runs on them, and then the frame is tracked.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers import AutoConfig, Sam3TrackerVideoModel, Sam3TrackerVideoProcessor
from transformers.models.sam2_video.video_processing_sam2_video import Sam2VideoVideoProcessor
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def load_reference(checkpoint: str, size: int, dtype: torch.dtype = torch.float32) -> Sam3TrackerVideoModel:
    """The reference model at a resolution of `size` pixels, weights from the checkpoint, nothing replaced."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.image_size = size
    config = getattr(config, "tracker_config", None) or config
    return Sam3TrackerVideoModel.from_pretrained(checkpoint, config=config, dtype=dtype).eval()


def load_processor(size: int, mean: list[float], std: list[float]) -> Sam3TrackerVideoProcessor:
    """The reference processor for images of `size` pixels."""
    options = {"size": {"height": size, "width": size}, "image_mean": mean, "image_std": std}
    return Sam3TrackerVideoProcessor(
        image_processor=Sam3ImageProcessor(**options), video_processor=Sam2VideoVideoProcessor(**options)
    )


def read_frames(folder: Path, limit: int | None) -> list[np.ndarray]:
    """Images of a folder in name order as `[h, w, 3]` u8, EXIF orientation applied."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:limit]
    return [np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")) for path in paths]


def read_mask(path: Path, object_id: int) -> np.ndarray:
    """An index mask's pixels of one object, or all that are not zero if it knows one value only; bool `[h, w]`."""
    image = Image.open(path)
    ids = np.asarray(image if image.mode in ("P", "L", "I;16", "I") else image.convert("L"))
    values = np.unique(ids[ids > 0])
    return ids > 0 if len(values) == 1 else ids == object_id


def add_prompt(processor, session, entry: dict, folder: Path) -> None:
    """Gives one entry of a prompts file to the session."""
    arguments = {"inference_session": session, "frame_idx": entry["frame"], "obj_ids": entry["object"]}
    if entry.get("mask"):
        mask = read_mask(folder / entry["mask"], entry["object"])
        processor.add_inputs_to_inference_session(**arguments, input_masks=mask)
        return
    if entry.get("points"):
        points = [[float(x), float(y)] for x, y, *_ in entry["points"]]
        labels = [int(point[2]) if len(point) > 2 else 1 for point in entry["points"]]
        arguments |= {"input_points": [[points]], "input_labels": [[labels]]}
    if entry.get("box"):
        arguments["input_boxes"] = [[[float(value) for value in entry["box"]]]]
    processor.add_inputs_to_inference_session(**arguments)


def run_frame(model, processor, session, frame: int, prompts: list[dict], folder: Path):
    """Gives the frame's prompts to the session and tracks it; the model's output, None while there is no object."""
    prompted = [entry for entry in prompts if entry["frame"] == frame]
    for entry in prompted:
        add_prompt(processor, session, entry, folder)
    if prompted:
        # A session takes only the last call's objects for new ones. Run after each prompt instead, it would track the
        # frame's other objects first, and then no longer take a prompt of theirs for a conditioning one.
        session.obj_with_new_inputs = list(dict.fromkeys(entry["object"] for entry in prompted))
        model(inference_session=session, frame_idx=frame)
    return model(inference_session=session, frame_idx=frame) if session.get_obj_num() else None


@torch.inference_mode()
def roll_out(
    model, processor, frames: list[np.ndarray], prompts: list[dict], folder: Path, dtype=torch.float32, device="cpu"
):
    """Yields `(frame, object ids, low_res_masks [objects, h, w] f32, object_score [objects] f32)` for every frame."""
    session = processor.init_video_session(
        video=frames, dtype=dtype, inference_device=device, video_storage_device="cpu"
    )
    for frame in range(len(frames)):
        output = run_frame(model, processor, session, frame, prompts, folder)
        if output is None:
            continue
        masks = output.pred_masks.float().flatten(0, -3).cpu()
        yield frame, list(output.object_ids), masks, output.object_score_logits.float().flatten().cpu()


def write_frame(folder: Path, frame: int, ids: list[int], masks: torch.Tensor, scores: torch.Tensor) -> None:
    """Writes what `roll_out` yields for a frame as `folder/NNNNN.safetensors`."""
    tensors = {
        "low_res_masks": masks.contiguous(),
        "object_score": scores.contiguous(),
        "object_ids": torch.tensor(ids, dtype=torch.int64),
    }
    save_file(tensors, folder / f"{frame:05d}.safetensors")


def main() -> None:
    """Command line: writes `NNNNN.safetensors` a frame, as `snow-ort run --dump-logits` does."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--frames", type=Path, required=True, help="folder of images in name order")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON as for `snow-ort run --prompts`")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--mean", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--std", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    dtype = getattr(torch, arguments.dtype)
    model = load_reference(arguments.checkpoint, arguments.res, dtype).to(arguments.device)
    processor = load_processor(arguments.res, arguments.mean, arguments.std)
    frames = read_frames(arguments.frames, arguments.max_frames)
    prompts = json.loads(arguments.prompts.read_text())
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder, device = arguments.prompts.parent, arguments.device
    for frame, ids, masks, scores in roll_out(model, processor, frames, prompts, folder, dtype, device):
        write_frame(arguments.out, frame, ids, masks, scores)
        print(f"frame {frame}: {len(ids)} objects", flush=True)


if __name__ == "__main__":
    main()
