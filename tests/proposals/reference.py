"""What Ultralytics makes of a frame and a segmentation graph's outputs, written anew with NumPy, torch and torchvision.

It follows Ultralytics 8.4: `LetterBox`, `non_max_suppression`, `scale_boxes`, `process_mask_native`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
import torchvision


@dataclass
class Found:
    """One proposal."""

    box: np.ndarray
    score: float
    number: int
    mask: np.ndarray


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """OpenCV's bilinear resize of bytes: weights of 11 bits, applied to columns, then to rows."""
    if image.shape[:2] == (height, width):
        return image

    def axis(length: int, wanted: int) -> tuple[np.ndarray, ...]:
        position = ((np.arange(wanted) + 0.5) * (1.0 / (wanted / length)) - 0.5).astype(np.float32)
        low = np.floor(position).astype(int)
        share = np.where((low < 0) | (low >= length - 1), 0, position - low.astype(np.float32))
        low = low.clip(0, length - 1)
        weight = [np.rint(part * np.float32(2048)).astype(np.int64) for part in (np.float32(1) - share, share)]
        return low, (low + 1).clip(0, length - 1), *weight

    left, right, near, far = axis(image.shape[1], width)
    wide = image[:, left].astype(np.int64) * near[:, None] + image[:, right] * far[:, None]
    top, bottom, near, far = axis(image.shape[0], height)
    near, far = near[:, None, None], far[:, None, None]
    value = ((near * (wide[top] >> 4)) >> 16) + ((far * (wide[bottom] >> 4)) >> 16)
    return ((value + 2) >> 2).clip(0, 255).astype(np.uint8)


def letterbox(image: np.ndarray, size: tuple[int, int], tight: int | None) -> np.ndarray:
    """The frame in an image of a size (width, height), or padded to a multiple of `tight` only."""
    rows, columns = image.shape[:2]
    gain = min(size[0] / columns, size[1] / rows)
    width, height = max(round(columns * gain), 1), max(round(rows * gain), 1)
    room = [size[0] - width, size[1] - height]
    if tight:
        room = [length % tight for length in room]
    (left, right), (top, bottom) = ((round(r / 2 - 0.1), round(r / 2 + 0.1)) for r in room)
    scaled = resized(image, width, height)
    return np.pad(scaled, ((top, bottom), (left, right), (0, 0)), constant_values=114)


def decode(
    detections: torch.Tensor, count: int, options: dict, *, end_to_end: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes, scores, classes and coefficients of what is kept."""
    if end_to_end:
        rows = detections[0]
        rows = rows[rows[:, 4] > options["conf"]]
        rows = rows[rows[:, 4].argsort(descending=True, stable=True)][: options["max_det"]]
        return rows[:, :4], rows[:, 4], rows[:, 5], rows[:, 6:]
    rows = detections[0].T
    scores, number = rows[:, 4:-count].max(dim=1)
    above = scores > options["conf"]
    rows, scores, number = rows[above], scores[above], number[above]
    boxes = torchvision.ops.box_convert(rows[:, :4], "cxcywh", "xyxy")
    groups = torch.zeros_like(number) if options.get("agnostic") else number
    keep = torchvision.ops.batched_nms(boxes, scores, groups, options["iou"])[: options["max_det"]]
    return boxes[keep], scores[keep], number[keep], rows[keep, -count:]


def masks_of(
    prototypes: torch.Tensor, coefficients: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Masks at the frame's size (rows, columns), within boxes in its pixels."""
    rows, columns = shape
    count, high, wide = prototypes.shape
    logits = (coefficients @ prototypes.reshape(count, -1)).reshape(1, -1, high, wide)

    def room(scale: int) -> tuple[int, int, int, int]:
        gain = min(scale * high / rows, scale * wide / columns)
        return round(rows * gain), round(columns * gain), scale * high, scale * wide

    used_rows, used_columns, all_rows, all_columns = room(4)
    grey = [all_rows - used_rows, all_columns - used_columns]
    # The least scale at which the grey on each side is whole pixels.
    scale = next(s for s in (1, 2, 4) if all(g % (4 // s) == 0 and (g // 2) % (4 // s) == 0 for g in grey))
    if scale > 1:
        logits = F.interpolate(logits, scale_factor=scale, mode="bilinear")
    used_rows, used_columns, all_rows, all_columns = room(scale)
    top, left = round((all_rows - used_rows) / 2 - 0.1), round((all_columns - used_columns) / 2 - 0.1)
    logits = logits[..., top : top + used_rows, left : left + used_columns]
    logits = F.interpolate(logits, (rows, columns), mode="bilinear")[0]
    x, y = torch.arange(columns)[None, None], torch.arange(rows)[None, :, None]
    x1, y1, x2, y2 = (boxes[:, i, None, None] for i in range(4))
    return (logits > 0) & (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def look(
    graph: Path, image: np.ndarray, options: dict, *, size: tuple[int, int], tight: int | None
) -> tuple[list[Found], int]:
    """What a graph proposes on a frame `[rows, columns, 3]`, and how many detections were above the score."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    dtype = np.float16 if source.type == "tensor(float16)" else np.float32
    boxed = letterbox(image, size, tight)
    pixels = (boxed.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)).astype(dtype)
    outputs = session.run(["output0", "output1"], {source.name: pixels})
    detections, prototypes = (torch.from_numpy(output.astype(np.float32)) for output in outputs)
    count = prototypes.shape[1]
    end_to_end = detections.shape[2] == 6 + count
    boxes, scores, number, coefficients = decode(detections, count, options, end_to_end=end_to_end)
    everything = dict(options, iou=1.0, max_det=10**6)
    above = len(decode(detections, count, everything, end_to_end=end_to_end)[0])

    rows, columns = image.shape[:2]
    gain = min(boxed.shape[1] / columns, boxed.shape[0] / rows)
    width, height = max(round(columns * gain), 1), max(round(rows * gain), 1)
    left, top = math.floor((boxed.shape[1] - width) / 2), math.floor((boxed.shape[0] - height) / 2)
    boxes = (boxes - torch.tensor([left, top, left, top])) / torch.tensor([width / columns, height / rows] * 2)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, columns)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, rows)
    masks = masks_of(prototypes[0], coefficients, boxes, (rows, columns))
    found = zip(boxes.numpy(), scores.tolist(), number.int().tolist(), masks.numpy(), strict=True)
    return [Found(*one) for one in found if one[3].any()], above
