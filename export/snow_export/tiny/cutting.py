"""Cuts a thing out of a photograph, given a box around it: superpixels, parted by their colours and the edges between.

As GrabCut does (Rother, Kolmogorov and Blake 2004), but with superpixels in place of pixels: two mixtures of colours,
for the thing and for what is around it, are fitted and the cheapest cut is found, in turn.
"""

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from skimage.color import rgb2lab
from skimage.measure import label
from skimage.segmentation import slic
from sklearn.mixture import GaussianMixture

# Longer side at which cuts are made.
CUT_SIDE = 480
SUPERPIXELS = 2200
ROUNDS = 5
# How much an edge without contrast costs against a colour that fits badly; costs are rounded to 1 / SCALE.
SMOOTHNESS, SCALE = 6.0, 1000


def _mixture(colours: np.ndarray) -> GaussianMixture:
    count = int(min(5, max(1, len(colours) // 40)))
    return GaussianMixture(count, covariance_type="full", reg_covar=4.0, random_state=0).fit(colours)


def _neighbours(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of superpixels that touch, the first smaller, and the length of their border in pixels."""
    pairs = [(parts[:, :-1], parts[:, 1:]), (parts[:-1], parts[1:])]
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    low, high = np.minimum(first, second), np.maximum(first, second)
    keys, lengths = np.unique((low * (parts.max() + 1) + high)[low != high], return_counts=True)
    return keys // (parts.max() + 1), keys % (parts.max() + 1), lengths


def cheapest_cut(inside: np.ndarray, outside: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], costs: np.ndarray):
    """Which nodes bool `[n]` belong to the thing, so that the sum of costs is least.

    `inside` and `outside` `[n]` are what it costs to have a node there, `costs` what it costs to part a pair.
    """
    count = len(inside)
    source, sink = count, count + 1
    nodes = np.arange(count)
    low, high = pairs
    rows = np.concatenate([np.full(count, source), nodes, low, high])
    columns = np.concatenate([nodes, np.full(count, sink), high, low])
    values = np.concatenate([outside, inside, costs, costs])
    values = np.clip(np.round(values * SCALE), 0, 2**28).astype(np.int32)
    graph = coo_matrix((values, (rows, columns)), (count + 2, count + 2)).tocsr()
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    thing = np.zeros(count + 2, bool)
    thing[reached] = True
    return thing[:count]


def _tidied(mask: np.ndarray) -> np.ndarray:
    """The largest piece and those of a tenth of it, without small holes and hairs."""
    mask = ndimage.binary_opening(mask, iterations=1)
    pieces = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if not sizes.any():
        return mask
    mask = np.isin(pieces, np.flatnonzero(sizes >= sizes.max() / 10))
    holes = label(~mask)
    sizes = np.bincount(holes.ravel())
    small = sizes < mask.sum() / 60
    small[0] = False
    return mask | small[holes]


def cut_out(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Coverage f32 `[h, w]` in 0..1 of the thing in a box of u8 `[h, w, 3]`; `box` in shares of the sides: left, top,
    right, bottom. At a box that reaches the picture's border, the border itself is taken for the surroundings, if
    nothing else is left of them.
    """
    height, width = picture.shape[:2]
    lab = rgb2lab(picture)
    lab[..., 0] *= 0.7
    parts = slic(picture, SUPERPIXELS, compactness=6, start_label=0, channel_axis=2)
    count = parts.max() + 1
    area = np.bincount(parts.ravel(), minlength=count).astype(np.float64)
    mean = np.stack([np.bincount(parts.ravel(), lab[..., c].ravel(), count) for c in range(3)], 1) / area[:, None]
    within = np.zeros((height, width), bool)
    edge = 1 if min(box) > 0 or max(box) < 1 else max(2, width // 60)
    left, top = int(box[0] * width), int(box[1] * height)
    right, bottom = int(box[2] * width), int(box[3] * height)
    if (right - left) * (bottom - top) > 0.9 * width * height:
        left, top, right, bottom = left + edge, top + edge, right - edge, bottom - edge
    within[top:bottom, left:right] = True
    share = np.bincount(parts.ravel(), within.ravel(), count) / area
    around = share < 0.5
    low, high, lengths = _neighbours(parts)
    contrast = ((mean[low] - mean[high]) ** 2).sum(axis=1)
    pairs, costs = (low, high), SMOOTHNESS * np.exp(-contrast / (2 * contrast.mean() + 1e-6)) * lengths / 4
    thing = ~around
    for _ in range(ROUNDS):
        if thing.sum() < 4 or around.sum() < 2:
            break
        inner, outer = _mixture(np.repeat(mean[thing], 4, 0)), _mixture(np.repeat(mean[~thing], 4, 0))
        weight = np.sqrt(area)
        inside, outside = (-mixture.score_samples(mean) * weight / 4 for mixture in (inner, outer))
        least = np.minimum(inside, outside)
        inside, outside = inside - least, outside - least
        inside[around] = 1e5
        outside[around] = 0
        before, thing = thing, cheapest_cut(inside, outside, pairs, costs)
        if (before == thing).all():
            break
    mask = _tidied(thing[parts] & (within | (share[parts] >= 0.5)))
    return np.clip(ndimage.gaussian_filter(mask.astype(np.float32), 1.0) * 2 - 0.55, 0, 1).astype(np.float32)
