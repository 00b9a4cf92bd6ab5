"""Backgrounds: every one a function of colours, a seed and the size."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from words import COLOURS


@dataclass(frozen=True)
class Kind:
    """A kind of background: how it is drawn, how often, and which colours an object on it must not have."""

    draw: Callable
    weight: int
    taken: tuple[str, ...] | None = None


def _grid(size: int):
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[None, :], axis[:, None]


def _mix(amount: np.ndarray, first, second) -> np.ndarray:
    amount = np.clip(amount, 0, 1)[..., None].astype(np.float32)
    return np.asarray(first, np.float32) * (1 - amount) + np.asarray(second, np.float32) * amount


def _soft(edge: np.ndarray, size: int) -> np.ndarray:
    """A step at zero of a signed distance in units of the side, one pixel wide."""
    return np.clip(edge * size + 0.5, 0, 1)


def _noise(rng: random.Random, cells: int, size: int) -> np.ndarray:
    grid = np.random.default_rng(rng.getrandbits(32)).random((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _plain(rng, first, second, size):
    return np.tile(np.asarray(first, np.float32), (size, size, 1))


def _gradient(rng, first, second, size):
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    return _mix(0.5 + ((x - 0.5) * c + (y - 0.5) * s) / (abs(c) + abs(s)), first, second)


def _stripes(rng, first, second, size):
    x, y = _grid(size)
    angle = rng.choice((0, math.pi / 2, math.pi / 4, -math.pi / 4))
    period = rng.uniform(0.1, 0.3)
    phase = (x * math.cos(angle) + y * math.sin(angle)) / period + rng.random()
    return _mix(_soft((np.abs(phase % 1 - 0.5) - 0.25) * period, size), first, second)


def _checks(rng, first, second, size):
    x, y = _grid(size)
    cells = rng.randint(3, 8)
    wave = [(np.abs((a * cells / 2) % 1 - 0.5) - 0.25) * 2 / cells for a in (x, y)]
    a, b = (_soft(w, size) for w in wave)
    return _mix(a * (1 - b) + b * (1 - a), first, second)


def _dots(rng, first, second, size):
    x, y = _grid(size)
    cells = rng.randint(4, 8)
    distance = np.hypot((x * cells) % 1 - 0.5, (y * cells) % 1 - 0.5)
    return _mix(_soft((rng.uniform(0.18, 0.3) - distance) / cells, size), first, second)


def _clouds(rng, first, second, size):
    amount = 0.65 * _noise(rng, rng.randint(4, 8), size) + 0.35 * _noise(rng, rng.randint(12, 24), size)
    light = np.asarray(first, np.float32)
    return _mix(amount, light * 0.72, light + (255 - light) * 0.35)


def _hills(rng, size, canvas, base, colour):
    x, y = _grid(size)
    line = base + 0.05 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6)) + 0.03 * np.sin(x * rng.uniform(9, 17))
    amount = _soft(y - line, size)[..., None]
    canvas += amount * (np.asarray(colour, np.float32) - canvas)


def _landscape(rng, first, second, size):
    x, y = _grid(size)
    horizon = rng.uniform(0.45, 0.7)
    canvas = _mix(np.broadcast_to(y / horizon, (size, size)), (112, 168, 232), (208, 228, 244))
    for step, colour in enumerate(((128, 168, 140), (96, 150, 92), (72, 128, 64))[rng.randint(0, 1):]):
        _hills(rng, size, canvas, horizon + 0.13 * step, colour)
    return canvas


def _sea(rng, first, second, size):
    x, y = _grid(size)
    horizon = rng.uniform(0.35, 0.55)
    canvas = _mix(np.broadcast_to(y / horizon, (size, size)), (150, 196, 238), (226, 236, 240))
    canvas += _soft(y - horizon, size)[..., None] * (np.float32((48, 112, 170)) - canvas)
    beach = rng.uniform(0.75, 0.9)
    line = beach + 0.03 * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6))
    canvas += _soft(y - line, size)[..., None] * (np.float32((226, 204, 156)) - canvas)
    return canvas


KINDS = {
    "plain": Kind(_plain, 6),
    "gradient": Kind(_gradient, 4),
    "stripes": Kind(_stripes, 2),
    "checks": Kind(_checks, 2),
    "dots": Kind(_dots, 2),
    "clouds": Kind(_clouds, 3),
    "landscape": Kind(_landscape, 2, ("green", "cyan", "blue", "gray")),
    "sea": Kind(_sea, 2, ("cyan", "blue", "white", "gray")),
}


def taken(kind: str, colours: tuple[str, str]) -> tuple[str, ...]:
    """The colours that an object on this background must not have."""
    fixed = KINDS[kind].taken
    return fixed if fixed else colours[: 1 if kind in ("plain", "clouds") else 2]


def draw(kind: str, colours: tuple[str, str], seed: int, size: int) -> np.ndarray:
    """(size, size, 3), float32, 0 to 255."""
    rng = random.Random(seed)
    first, second = (tuple(c + rng.randint(-10, 10) for c in COLOURS[name]) for name in colours)
    return np.clip(KINDS[kind].draw(rng, first, second, size), 0, 255).astype(np.float32)
