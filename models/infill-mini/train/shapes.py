"""Outlines of the shapes as polygons in the unit disc, y downwards."""

import math

import numpy as np


def _polar(radii, start: float = -math.pi / 2) -> np.ndarray:
    angles = start + np.arange(len(radii)) * (2 * math.pi / len(radii))
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _circle(radius: float = 1.0, n: int = 48) -> np.ndarray:
    return _polar(np.full(n, radius))


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], axis=1) / 16.5


def _moon() -> np.ndarray:
    outer = np.linspace(0.3 * math.pi, 1.7 * math.pi, 36)
    tip = np.array([math.cos(outer[0]), math.sin(outer[0])])
    centre, radius = 0.45, math.hypot(tip[0] - 0.45, tip[1])
    sweep = math.atan2(tip[1], tip[0] - centre)
    inner = np.linspace(2 * math.pi - sweep, sweep, 28)[1:-1]
    points = [np.stack([np.cos(outer), np.sin(outer)], 1),
              np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], 1)]  # fmt: skip
    return np.concatenate(points) + np.array([0.25, 0])


def _flower() -> np.ndarray:
    t = np.arange(80) * (2 * math.pi / 80)
    return _polar(0.62 + 0.38 * np.abs(np.cos(2.5 * t)))


def _points(*xy) -> np.ndarray:
    return np.array(xy, dtype=np.float64)


# The first polygon is the outline, a second one a hole.
OUTLINES: dict[str, list[np.ndarray]] = {
    "circle": [_circle()],
    "square": [_points((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))],
    "triangle": [_points((0, -0.95), (0.98, 0.75), (-0.98, 0.75))],
    "star": [_polar(np.where(np.arange(10) % 2 == 0, 1.0, 0.42))],
    "heart": [_heart()],
    "diamond": [_points((0, -1), (0.68, 0), (0, 1), (-0.68, 0))],
    "cross": [_points((-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
                      (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3))],
    "ring": [_circle(), _circle(0.52)],
    "moon": [_moon()],
    "arrow": [_points((-1, -0.25), (0.1, -0.25), (0.1, -0.72), (1, 0), (0.1, 0.72), (0.1, 0.25), (-1, 0.25))],
    "flower": [_flower()],
    "house": [_points((0, -1), (0.95, -0.15), (0.7, -0.15), (0.7, 0.85), (-0.7, 0.85), (-0.7, -0.15), (-0.95, -0.15))],
}  # fmt: skip


def placed(shape: str, centre: tuple[float, float], radius: float, angle: float = 0.0) -> list[np.ndarray]:
    """The polygons of `shape`, turned by `angle` (radians) and put at `centre`."""
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    return [polygon @ turn * radius + np.asarray(centre) for polygon in OUTLINES[shape]]
