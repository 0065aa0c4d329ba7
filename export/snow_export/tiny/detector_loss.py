"""The detector's prediction for pairs of picture and caption, and its loss.

The forward pass is the reference's own modules, called as `Sam3Model.forward` calls them, with the answers of all
decoder layers kept. Training follows DETR: candidates and objects are matched one to one by cost, those matched learn
box, score and mask, all others a score of zero. The presence of anything at all is learned apart from where it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import Sam3Model
from transformers.models.sam3.modeling_sam3 import box_cxcywh_to_xyxy, inverse_sigmoid

from .batches import boxes_of
from .captioned import Pairs
from .rollout import mask_loss

BOX_COST, GIOU_COST, SCORE_COST = 5.0, 2.0, 2.0
# Weights of the terms; that of masks is 1.
BOX, GIOU, SCORE, PRESENCE, SKETCH = 5.0, 2.0, 2.0, 1.0, 1.0


@dataclass
class Found:
    """`boxes` `[layers, pairs, queries, 4]`, corners as shares; `logits` `[layers, pairs, queries]`; `presence`
    `[layers, pairs]`; `queries` `[pairs, queries, C]` of the last layer, and what else the mask decoder takes.
    """

    boxes: Tensor
    logits: Tensor
    presence: Tensor
    queries: Tensor
    for_masks: dict

    def masks(self, model: Sam3Model, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits `[pairs, chosen, 4 G, 4 G]` of the candidates numbered `chosen` i64 `[pairs, chosen]`, and those
        of a sketch of all that is wanted, `[pairs, 4 G, 4 G]`. Masks of all would be most of the work of a step.
        """
        queries = self.queries.gather(1, chosen.unsqueeze(2).expand(-1, -1, self.queries.shape[2]))
        output = model.mask_decoder(decoder_queries=queries, **self.for_masks)
        return output.pred_masks.float(), output.semantic_seg[:, 0].float()


def predict(model: Sam3Model, pairs: Pairs) -> Found:
    """What the model answers."""
    pixels = (pairs.images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        tokens = model.vision_encoder.backbone(pixels).last_hidden_state
    grid = pixels.shape[2] // 14
    spatial = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    neck = model.vision_encoder.neck
    levels = [layer(spatial).index_select(0, pairs.image_of) for layer in neck.fpn_layers[:3]]
    # f32 whatever autocast makes of the levels: half of its digits would be lost in the sines.
    position = neck.position_encoding((1, levels[2].shape[1], grid, grid), spatial.device, torch.float32)
    position = position.expand(len(pairs.image_of), -1, -1, -1)
    prompt = model.get_text_features(input_ids=pairs.token_ids, attention_mask=pairs.token_mask).pooler_output
    mask = pairs.token_mask
    if pairs.boxes is not None:
        geometry = model.geometry_encoder(
            box_embeddings=pairs.boxes,
            box_mask=pairs.labels != -10,
            box_labels=pairs.labels.clamp(min=0),
            img_feats=tuple(levels),
            img_pos_embeds=(position,) * 3,
        )
        prompt = torch.cat((prompt, geometry.last_hidden_state), dim=1)
        mask = torch.cat((mask, geometry.attention_mask), dim=1)
    encoded = model.detr_encoder(
        vision_features=[levels[2]], text_features=prompt, vision_pos_embeds=[position], text_mask=mask
    )
    decoded = model.detr_decoder(
        vision_features=encoded.last_hidden_state,
        text_features=encoded.text_features,
        vision_pos_encoding=encoded.pos_embeds_flattened,
        text_mask=mask,
        spatial_shapes=encoded.spatial_shapes,
    )
    hidden = decoded.intermediate_hidden_states
    centres = (model.detr_decoder.box_head(hidden).float() + inverse_sigmoid(decoded.reference_boxes.float())).sigmoid()
    logits = model.dot_product_scoring(
        decoder_hidden_states=hidden, text_features=encoded.text_features, text_mask=mask
    ).squeeze(-1)
    return Found(
        boxes=box_cxcywh_to_xyxy(centres),
        logits=logits.float(),
        presence=decoded.presence_logits.squeeze(-1).float(),
        queries=hidden[-1],
        for_masks={
            "backbone_features": levels,
            "encoder_hidden_states": encoded.last_hidden_state,
            "prompt_features": prompt,
            "prompt_mask": mask,
        },
    )


def _match(costs: np.ndarray, counts: list[int]) -> np.ndarray:
    """The candidate of every object, i64 `[pairs, most objects]`; costs `[pairs, queries, most objects]`."""
    chosen = np.zeros((len(counts), costs.shape[2]), np.int64)
    for pair, count in enumerate(counts):
        if count:
            candidates, objects = linear_sum_assignment(costs[pair, :, :count])
            chosen[pair, objects] = candidates
    return chosen


def loss_of(model: Sam3Model, found: Found, pairs: Pairs) -> Tensor:
    """Five figures, f32 `[5]`: the loss; mean mask IoU of matched candidates; mean score of matched candidates and of
    others where something is there; share of pairs whose presence is on the right side. The loss has a gradient.
    """
    device, side = pairs.ids.device, pairs.ids.shape[1]
    counts = [len(objects) for objects in pairs.wanted]
    layers, total, queries = found.logits.shape
    most, objects = max(*counts, 1), max(sum(counts), 1)
    table = np.zeros((total, most), np.uint8)
    for row, identities in enumerate(pairs.wanted):
        table[row, : len(identities)] = identities
    padded = torch.from_numpy(table).to(device)
    filled = padded > 0
    there = filled.any(dim=1)
    truth = pairs.ids[pairs.image_of][:, None] == padded.masked_fill(~filled, 255)[:, :, None, None]
    boxes = boxes_of(truth) / side

    with torch.no_grad():
        cost = BOX_COST * torch.cdist(found.boxes[-1], boxes, p=1)
        cost -= GIOU_COST * _giou(found.boxes[-1][:, :, None], boxes[:, None])
        cost -= SCORE_COST * found.logits[-1].sigmoid()[:, :, None]
        # All layers work for the candidate that the last one chose.
        chosen = torch.from_numpy(_match(cost.cpu().numpy(), counts)).to(device)
        target = torch.zeros(total, queries, device=device).scatter_add(1, chosen, filled.float())

    masks, sketch = found.masks(model, chosen)
    grid = sketch.shape[-2:]
    coverage = F.interpolate(truth.float(), grid, mode="area")
    wanted = F.interpolate(truth.any(dim=1, keepdim=True).float(), grid, mode="area")[:, 0]
    presence = F.binary_cross_entropy_with_logits(found.presence, there.float().expand(layers, -1))
    loss = (
        PRESENCE * presence
        + SKETCH * mask_loss(sketch, wanted).mean()
        + (mask_loss(masks, coverage) * filled).sum() / objects
    )
    # Where nothing is there, presence says so: scores only have to tell candidates apart.
    weight = torch.where(there, 1.0, 0.1)[:, None]
    for boxes_of_layer, logits in zip(found.boxes, found.logits, strict=True):
        cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        focal = cross * torch.where(target > 0, 1.0, logits.detach().sigmoid() ** 2)
        guessed = boxes_of_layer.gather(1, chosen.unsqueeze(2).expand(-1, -1, 4))
        box = BOX * (guessed - boxes).abs().sum(dim=2) + GIOU * (1 - _giou(guessed, boxes))
        loss = loss + (SCORE * (focal * weight).sum() + (box * filled).sum()) / objects

    with torch.no_grad():
        guess, real = masks > 0, coverage > 0.5
        iou = (guess & real).flatten(2).sum(dim=2) / (guess | real).flatten(2).sum(dim=2).clamp(min=1)
        score = found.logits[-1].sigmoid()
        others = (1 - target) * there[:, None]
        figures = [(iou * filled).sum() / objects, (score * target).sum() / objects]
        figures += [(score * others).sum() / others.sum().clamp(min=1)]
        figures += [((found.presence[-1] > 0) == there).float().mean()]
    return torch.stack([loss, *figures])


def _giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of boxes with their partners, `[..., 4]` corners to `[...]`."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inside = (high - low).clamp(min=0).prod(dim=-1)
    union = sum((box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (first, second)) - inside
    around = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    around = around.clamp(min=0).prod(dim=-1)
    return inside / union.clamp(min=1e-6) - (around - union) / around.clamp(min=1e-6)
