"""Runs the unpatched reference's whole video loop: `python -m snow_export.reference_video`.

It finds what texts mean on every frame and follows it. It uses nothing of the export but the reference's own helpers.
Writes `NNNNN.safetensors` for each frame: `object_ids` i64 `[objects]`, the reference's numbers plus 1 as `snow-ort`
has them, `scores` f32 `[objects]` and `masks` u8 `[objects, h, w]`; and `texts.json`, the objects of each text.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, CLIPTokenizer, Sam3VideoModel, Sam3VideoProcessor
from transformers.models.sam2_video.video_processing_sam2_video import Sam2VideoVideoProcessor
from transformers.models.sam3.image_processing_sam3 import Sam3ImageProcessor

from .reference import read_frames


def load_video_model(checkpoint: str, size: int) -> Sam3VideoModel:
    """The reference model at a resolution of `size` pixels, weights from the checkpoint, nothing replaced."""
    config = AutoConfig.from_pretrained(checkpoint)
    low_res = config.low_res_mask_size * size // config.image_size
    config.image_size = size
    # The reference states it apart from the image's size.
    config.low_res_mask_size = low_res
    return Sam3VideoModel.from_pretrained(checkpoint, config=config, dtype=torch.float32).eval()


def load_video_processor(checkpoint: str, size: int, mean: list[float], std: list[float]) -> Sam3VideoProcessor:
    """The reference processor for images of `size` pixels, with the checkpoint's tokenizer."""
    options = {"size": {"height": size, "width": size}, "image_mean": mean, "image_std": std}
    return Sam3VideoProcessor(
        image_processor=Sam3ImageProcessor(**options),
        video_processor=Sam2VideoVideoProcessor(**options),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint),
        target_size=size,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--frames", type=Path, required=True, help="folder of images in name order")
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--text", action="append", required=True)
    parser.add_argument("--mean", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--std", type=float, nargs=3, default=[0.5, 0.5, 0.5])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = load_video_model(arguments.checkpoint, arguments.res)
    processor = load_video_processor(arguments.checkpoint, arguments.res, arguments.mean, arguments.std)
    frames = read_frames(arguments.frames, arguments.max_frames)
    session = processor.init_video_session(video=frames, dtype=torch.float32)
    for text in arguments.text:
        processor.add_text_prompt(session, text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[int]] = {}
    for output in model.propagate_in_video_iterator(session):
        result = processor.postprocess_outputs(session, output)
        tensors = {
            "object_ids": result["object_ids"] + 1,
            "scores": result["scores"].float(),
            "masks": result["masks"].to(torch.uint8),
        }
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            arguments.out / f"{output.frame_idx:05d}.safetensors",
        )
        for text, objects in result["prompt_to_obj_ids"].items():
            texts[text] = sorted({*texts.get(text, []), *(number + 1 for number in objects)})
        print(f"frame {output.frame_idx}: objects {(result['object_ids'] + 1).tolist()}", flush=True)
    (arguments.out / "texts.json").write_text(json.dumps(texts) + "\n")


if __name__ == "__main__":
    main()
