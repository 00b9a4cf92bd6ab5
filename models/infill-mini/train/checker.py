"""Names the colour and the shape of what stands in a hole, from pixels alone; it knows nothing of the model."""

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from shapes import OUTLINES, placed
from words import COLOURS

SIDE = 48  # of the normalised silhouettes
# RGB distance from the background that makes a pixel part of an object: a quarter of what the strongest have, between these.
DIFFERENT = (34.0, 60.0)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB values 0 to 255, with lightness at half weight: shading must not change a name."""
    c = np.asarray(rgb, np.float64) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    xyz = c @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.stack([0.5 * (116 * f[..., 1] - 16), 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


NAMES = list(COLOURS)
CENTRES = lab(np.array([COLOURS[n] for n in NAMES]))


def object_region(picture: np.ndarray, background: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of the hole that no background pixel nearby explains, without small specks, and how far they are from it.

    Both (size, size): bool, and RGB distance.
    """
    size = picture.shape[0]
    reach = max(2, size // 64)
    nearest = np.full(mask.shape, np.inf)
    for dy in (-reach, 0, reach):
        for dx in (-reach, 0, reach):
            moved = ndimage.shift(background, (dy, dx, 0), order=0, mode="nearest")
            nearest = np.minimum(nearest, np.linalg.norm(picture.astype(np.float64) - moved, axis=-1))
    threshold = np.clip(0.25 * np.percentile(nearest[mask], 98), *DIFFERENT) if mask.any() else DIFFERENT[1]
    labels, count = ndimage.label((nearest > threshold) & mask)
    if not count:
        return np.zeros_like(mask), nearest
    areas = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    return np.isin(labels, 1 + np.flatnonzero(areas >= 0.15 * areas.max())), nearest


def colour_name(picture: np.ndarray, region: np.ndarray, distance: np.ndarray) -> str | None:
    """The name that most pixels of the region have, the clearer ones counting more and dark contours less."""
    pixels = picture[region]
    if not len(pixels):
        return None
    nearest = np.linalg.norm(lab(pixels)[:, None] - CENTRES[None], axis=-1).argmin(1)
    votes = np.bincount(nearest, distance[region], len(NAMES))
    for name in ("black", "white", "gray", "brown"):
        votes[NAMES.index(name)] *= 0.55
    return NAMES[int(votes.argmax())]


def silhouette(region: np.ndarray) -> np.ndarray:
    """The region's window, brought to (SIDE, SIDE) with its proportions kept."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    part = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(part.shape)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
    square[top : top + part.shape[0], left : left + part.shape[1]] = part * np.uint8(255)
    return np.asarray(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BOX)) > 127


def _templates() -> list[tuple[str, np.ndarray]]:
    made = []
    for name in OUTLINES:
        for degrees in range(-16, 17, 4):
            image = Image.new("L", (160, 160), 0)
            draw = ImageDraw.Draw(image)
            for index, polygon in enumerate(placed(name, (80, 80), 70, math.radians(degrees))):
                draw.polygon([tuple(p) for p in polygon], fill=0 if index else 255)
            made.append((name, silhouette(np.asarray(image) > 127)))
    return made


TEMPLATES = _templates()


def shape_name(region: np.ndarray) -> tuple[str | None, float]:
    """The shape whose silhouette covers the region best, and how well (intersection over union)."""
    if region.sum() < 20:
        return None, 0.0
    seen = silhouette(region)
    scores = [(seen & t).sum() / max(1, (seen | t).sum()) for _, t in TEMPLATES]
    best = int(np.argmax(scores))
    return TEMPLATES[best][0], float(scores[best])


def examine(picture: np.ndarray, background: np.ndarray, mask: np.ndarray) -> tuple[str | None, str | None, float]:
    """Colour, shape and how sure the shape is, of what stands in the hole."""
    region, distance = object_region(picture, background, mask)
    name, score = shape_name(region)
    return colour_name(picture, region, distance), name, score
