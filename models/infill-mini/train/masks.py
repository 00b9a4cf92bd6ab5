"""Masks as in inpainting training: boxes, blobs, strokes, whole objects widened, the complement. 1 = repaint."""

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from scenes import Thing, thing_mask


def around(rng: random.Random, thing: Thing, size: int) -> np.ndarray:
    """A hole (size, size), bool, that holds the whole object."""
    kind = rng.choices(("box", "ellipse", "grown", "blob"), (4, 2, 3, 2))[0]
    x, y, r = thing.x, thing.y, thing.radius
    if kind == "grown":
        return thing_mask(thing, size, rng.uniform(0.015, 0.08)) > 0.02
    slack = [r * (1 + rng.uniform(0.03, 0.45)) for _ in range(4)]
    if kind == "box":
        return _drawn(size, "rectangle", x - slack[0], y - slack[1], x + slack[2], y + slack[3])
    if kind == "ellipse":
        wide, high = (1.08 * r * rng.uniform(1.0, 1.3) for _ in range(2))
        return _drawn(size, "ellipse", x - wide, y - high, x + wide, y + high)
    return blob(rng, size, x, y, r * 1.1, r * rng.uniform(1.25, 1.6))


def blob(rng: random.Random, size: int, x: float, y: float, low: float, high: float) -> np.ndarray:
    """A smooth closed outline whose radius lies between `low` and `high`."""
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    wave = sum(math.sin(rng.uniform(0, 6.3)) * np.sin(k * angles + rng.uniform(0, 6.3)) for k in (1, 2, 3))
    radii = low + (high - low) * (wave - wave.min()) / max(1e-6, wave.max() - wave.min())
    points = [((x + r * math.cos(a)) * size, (y + r * math.sin(a)) * size) for a, r in zip(angles, radii)]
    return _polygon(size, points)


def free(rng: random.Random, size: int) -> np.ndarray:
    """A hole that knows nothing of the objects: a box, an ellipse, a blob or strokes."""
    kind = rng.choices(("box", "ellipse", "blob", "strokes"), (4, 2, 3, 3))[0]
    if kind == "strokes":
        return strokes(rng, size)
    wide, high = rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.35)
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)
    if kind == "blob":
        return blob(rng, size, x, y, min(wide, high), max(wide, high))
    return _drawn(size, "rectangle" if kind == "box" else "ellipse", x - wide, y - high, x + wide, y + high)


def strokes(rng: random.Random, size: int) -> np.ndarray:
    """One to three thick brush strokes."""
    image = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 3)):
        x, y, angle = rng.random(), rng.random(), rng.uniform(0, 6.3)
        width = rng.uniform(0.05, 0.14)
        for _ in range(rng.randint(2, 6)):
            angle += rng.uniform(-0.9, 0.9)
            length = rng.uniform(0.05, 0.2)
            x2, y2 = x + length * math.cos(angle), y + length * math.sin(angle)
            draw.line((x * size, y * size, x2 * size, y2 * size), fill=255, width=round(width * size))
            r = width / 2
            draw.ellipse([(v - r) * size for v in (x2, y2)] + [(v + r) * size for v in (x2, y2)], fill=255)
            x, y = x2, y2
    return np.asarray(image) > 0


def _drawn(size: int, what: str, *box: float) -> np.ndarray:
    image = Image.new("L", (size, size), 0)
    getattr(ImageDraw.Draw(image), what)([v * size for v in box], fill=255)
    return np.asarray(image) > 0


def _polygon(size: int, points) -> np.ndarray:
    image = Image.new("L", (size, size), 0)
    ImageDraw.Draw(image).polygon(points, fill=255)
    return np.asarray(image) > 0
