"""Losses on decoded class logits, each a mean over images, so that the mean over processes is the loss of the whole batch."""

import torch
from torch import Tensor

from camseg_core.labels import UNLABELLED


def pixel_losses(logits: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy and soft Jaccard loss of logits `(B, K, H, W)` against class indices `(B, H, W)`, 255 where unlabelled.

    `weights` `(K,)` weigh classes in the cross-entropy. The Jaccard loss is 1 less the intersection over union of probabilities
    and labels, averaged over the classes that an image shows: what is judged is the IoU, in which a thin pole weighs as much as
    the road, whereas cross-entropy counts pixels.
    """
    flat = indices.flatten(1)
    labelled = flat != UNLABELLED
    index = torch.where(labelled, flat, 0).long()
    log_share = logits.flatten(2).log_softmax(1)  # (B, K, H·W)
    of_truth = log_share.gather(1, index.unsqueeze(1)).squeeze(1)
    weight = weights[index] * labelled
    cross_entropy = -(of_truth * weight).sum(1) / weight.sum(1).clamp_min(1e-6)

    per_class = logits.new_zeros(logits.shape[:2])
    together = per_class.scatter_add(1, index, of_truth.exp() * labelled)
    pixels = per_class.scatter_add(1, index, labelled.to(logits.dtype))
    predicted = (log_share.exp() @ labelled.to(logits.dtype).unsqueeze(2)).squeeze(2)
    iou = (together + 1) / (predicted + pixels - together + 1)
    shown = pixels > 0
    jaccard = torch.where(shown, 1 - iou, 0.0).sum(1) / shown.sum(1).clamp_min(1)
    return cross_entropy.mean(), jaccard.mean()
