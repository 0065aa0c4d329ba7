"""Differentiable tracking with the export's own stages: a batch of objects from several clips, frame by frame.

The memory policy is that of the reference for objects that are all prompted on the first frame: that frame, the six
before, and sixteen pointers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam3TrackerVideoModel

from ..stages.mask_decoder import NO_OBJECT_LOGIT, MaskDecoder
from ..stages.memory_attention import MemoryAttention
from ..stages.memory_encoder import MemoryEncoder
from ..stages.plane_norm import with_plane_norms
from ..stages.vision_encoder import VisionEncoder


class _Decoder(MaskDecoder):
    """The mask decoder as training runs it: places of points stay in float32 where all else is rounded."""

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(coords.device.type, enabled=False):
            return super()._embed_points(coords, labels)


class Tracker(nn.Module):
    """The four stages around a model's parameters, at one side; `rounded` computes in bfloat16 where that is safe."""

    def __init__(self, model: Sam3TrackerVideoModel, rounded: bool = False):
        super().__init__()
        self.rounded = rounded
        self.side = model.config.image_size
        self.policy = (model.config.num_maskmem, model.config.max_object_pointers_in_encoder)
        self.vision = VisionEncoder(model, [0.5] * 3, [0.5] * 3, 1 / 255)
        self.attention = MemoryAttention(model, torch.float32)
        self.decoder = with_plane_norms(_Decoder(model, torch.float32), most=None)
        self.encoder = with_plane_norms(MemoryEncoder(model, torch.float32, torch.float32), most=None)
        self.constants: dict[tuple, Tensor] = {}
        # PyTorch's flash attention wants values as wide as keys.
        padding = torch.zeros(1, 1, self.attention.hidden - self.attention.channels)
        self.register_buffer("value_padding", padding, persistent=False)

    def constant(self, values: list, objects: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """`values` for each of `objects`, made once: a CUDA graph must not copy from the host."""
        key = (tuple(values), like.device, dtype)
        if key not in self.constants:
            self.constants[key] = torch.tensor([values], device=like.device, dtype=dtype)
        return self.constants[key].expand(objects, -1)


@dataclass
class Prompt:
    """What the tracker is told on the first frame.

    `coords` f32 `[objects, points, 2]` in pixels of the model's image and `labels` i64 `[objects, points]` as for the
    mask decoder. With `masks` f32 `[objects, side, side]` of zeros and ones, every object is given by its mask and no
    point counts.
    """

    coords: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass
class Prediction:
    """One frame: candidates `[N, 4, h, w]`, predicted IoU `[N, 4]`, object score `[N, 1]`, `several`: three count."""

    masks: Tensor
    iou: Tensor
    score: Tensor
    several: bool

    def chosen(self) -> Tensor:
        """Index of the candidate that the tracker takes, `[N]`."""
        if not self.several:
            return torch.zeros(len(self.masks), dtype=torch.int64, device=self.masks.device)
        return 1 + self.iou[:, 1:].argmax(dim=1)

    def mask(self) -> Tensor:
        """Logits of that candidate, `[N, h, w]`."""
        index = self.chosen().view(-1, 1, 1, 1).expand(-1, 1, *self.masks.shape[2:])
        return self.masks.gather(1, index)[:, 0]


def roll_out(tracker: Tracker, images: Tensor, clip_of: Tensor, prompt: Prompt) -> list[Prediction]:
    """Tracks objects through `images` u8 `[clips, frames, side, side, 3]`; `clip_of` `[N]` names each object's clip.

    Gradients flow through memories and pointers.
    """
    clips, frames = images.shape[:2]
    plain, without, high_0, high_1 = tracker.vision(images.flatten(0, 1))
    features = [tensor.unflatten(0, (clips, frames)) for tensor in (plain, without, high_0, high_1)]
    objects, device = len(clip_of), images.device
    no_mask, no_point = (
        torch.zeros(1, tracker.side, tracker.side, device=device),
        torch.zeros(objects, 1, 2, device=device),
    )
    no_label = torch.full((objects, 1), -1, device=device)
    false = torch.zeros(1, dtype=torch.bool, device=device)
    num_maskmem, max_pointers = tracker.policy
    horizon = min(frames, max_pointers)
    memories: list[Tensor] = []
    pointers: list[Tensor] = []
    predictions: list[Prediction] = []
    for frame in range(frames):
        plain, without, high_0, high_1 = (tensor[:, frame].index_select(0, clip_of) for tensor in features)
        given, has_mask = no_mask, false
        if frame == 0:
            embeddings, coords, labels = without, prompt.coords, prompt.labels
            several = labels.shape[1] <= 1
            if prompt.masks is not None:
                given, has_mask = prompt.masks, ~false
        else:
            recent = list(range(max(1, frame - num_maskmem + 1), frame))
            rows = [num_maskmem - 1] + [frame - t - 1 for t in recent]
            distances = [frame] + [d for d in range(1, horizon) if frame - d >= 1]
            embeddings = tracker.attention(
                plain,
                [memories[0]] + [memories[t] for t in recent],
                [pointers[0]] + [pointers[frame - d] for d in distances[1:]],
                tracker.constant(rows, objects, plain, torch.int64),
                tracker.constant([d / max(horizon - 1, 1) for d in distances], objects, plain, torch.float32),
                tracker.value_padding,
            )
            coords, labels = no_point, no_label
            several = True
        masks, iou, score, tokens = tracker.decoder.predict(embeddings, high_0, high_1, coords, labels, given, has_mask)
        prediction = Prediction(masks.float(), iou.float(), score.float(), several)
        predictions.append(prediction)
        if frame + 1 == frames:
            break
        chosen = prediction.chosen()
        token = tokens.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, tokens.shape[2]))[:, 0]
        there = (score > 0).float()
        pointer = there * tracker.decoder.pointer_projection(token) + (1 - there) * tracker.decoder.no_object_pointer
        pointers.append(pointer.view(objects, tracker.decoder.pointer_tokens, -1))
        mask = torch.where(
            score.unsqueeze(-1) > 0, prediction.mask(), torch.full_like(prediction.mask(), NO_OBJECT_LOGIT)
        )
        from_prompt = torch.full((objects,), frame == 0, device=device)
        # A mask that the user gave is there whatever the decoder says of it.
        seen = torch.where(has_mask, torch.ones_like(score[:, 0]), score[:, 0])
        memories.append(tracker.encoder(plain, mask, given, has_mask, seen, from_prompt))
    return predictions


def targets(truth: Tensor, low: int) -> Tensor:
    """Coverage of low-resolution pixels, f32 `[N, low, low]`, from `truth` bool `[N, side, side]`."""
    return F.interpolate(truth.float().unsqueeze(1), (low, low), mode="area")[:, 0]


def mask_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal and dice loss, as SAM 2 weighs them, of logits and coverages in 0..1 `[..., h, w]`: `[...]`."""
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    off = (probability - wanted).abs()
    focal = (cross * off**2).flatten(-2).mean(dim=-1)
    overlap = (probability * wanted).flatten(-2).sum(dim=-1)
    dice = 1 - (2 * overlap + 1) / (probability.flatten(-2).sum(dim=-1) + wanted.flatten(-2).sum(dim=-1) + 1)
    return 20 * focal + dice


def _candidate_losses(candidates: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mask loss and IoU, `[N, K]` each, of candidate logits and their targets `[N, K, h, w]`."""
    guess, truth = candidates.detach() > 0, wanted > 0.5
    union = (guess | truth).flatten(2).sum(dim=2)
    iou = (guess & truth).flatten(2).sum(dim=2) / union.clamp(min=1)
    return mask_loss(candidates, wanted), iou


def loss_of(prediction: Prediction, target: Tensor, followed: bool) -> tuple[Tensor, Tensor]:
    """Loss `[N]` of a frame and the IoU `[N]` of the mask that the tracker takes; `target` `[N, h, w]` in 0..1.

    As SAM 2 is trained: focal and dice loss on the best candidate, L1 on every predicted IoU, cross-entropy on whether
    the object is there; masks count only where it is. Where an object is `followed`, what it is leaves no doubt that
    several candidates are there for, and half of the mask loss is that of the candidate that the tracker takes.
    """
    visible = target.flatten(1).sum(dim=1) > 0.5
    candidates = prediction.masks[:, 1:] if prediction.several else prediction.masks[:, :1]
    guesses = prediction.iou[:, 1:] if prediction.several else prediction.iou[:, :1]
    wanted = target.unsqueeze(1).expand_as(candidates)
    losses, iou = _candidate_losses(candidates, wanted)
    best = losses.detach().argmin(dim=1, keepdim=True)
    iou_loss = (guesses - iou).abs().mean(dim=1)
    there = F.binary_cross_entropy_with_logits(prediction.score[:, 0], visible.float(), reduction="none")
    # Hidden objects are rare, and a score that leans towards what is common would never notice them.
    there = there * torch.where(visible, 1.0, 3.0)
    taken = (prediction.chosen() - 1 if prediction.several else prediction.chosen()).unsqueeze(1)
    mask = losses.gather(1, best)
    if followed:
        mask = (mask + losses.gather(1, taken)) / 2
    loss = visible * (mask[:, 0] + iou_loss) + there
    return loss, torch.where(visible, iou.gather(1, taken)[:, 0], torch.nan)
