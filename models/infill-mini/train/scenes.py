"""Scenes: described in units of the picture's side, drawn at any size, always the same for the same seed."""

import math
import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import backgrounds
import shapes
from words import COLOURS, SHAPES, STYLES

SUPERSAMPLING = 3


@dataclass
class Thing:
    """One object of a scene; lengths in units of the picture's side."""

    shape: str
    colour: str
    style: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[int, int, int]


@dataclass
class Scene:
    """A background and what stands on it."""

    background: str
    colours: tuple[str, str]
    background_seed: int
    style: str
    things: list[Thing] = field(default_factory=list)


def jittered(rng: random.Random, colour: str, amount: int = 10) -> tuple[int, int, int]:
    """The colour, a little off."""
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in COLOURS[colour])


def _far(rng: random.Random, taken: set[str]) -> str:
    return rng.choice([c for c in COLOURS if c not in taken])


def random_scene(rng: random.Random, count: int | None = None) -> Scene:
    """A scene with `count` objects, by default one to four."""
    style = rng.choices(STYLES, (5, 3, 3, 2, 2))[0]
    kinds = list(backgrounds.KINDS)
    kind = rng.choices(kinds, [backgrounds.KINDS[k].weight for k in kinds])[0]
    if style == "neon":
        first, second = rng.choice((("black", "blue"), ("black", "purple"), ("black", "gray"), ("black", "brown")))
        kind = kind if kind in ("plain", "gradient", "stripes", "clouds") else "plain"
    else:
        first = rng.choice(list(COLOURS))
        second = _far(rng, {first})
    scene = Scene(kind, (first, second), rng.getrandbits(32), style)
    taken = set(backgrounds.taken(kind, (first, second)))
    if style == "neon":
        taken |= {"black", "brown", "gray"}
    for _ in range(count or rng.choices((1, 2, 3, 4), (4, 3, 2, 1))[0]):
        thing = _place(rng, scene, taken)
        if thing:
            scene.things.append(thing)
    return scene


def _place(rng: random.Random, scene: Scene, taken: set[str]) -> Thing | None:
    for attempt in range(8):
        largest = (0.25, 0.25, 0.22, 0.18)[len(scene.things)]
        radius = rng.uniform(0.1, largest)
        x, y = rng.uniform(radius, 1 - radius), rng.uniform(radius, 1 - radius)
        if all(math.hypot(x - t.x, y - t.y) > radius + t.radius + 0.02 for t in scene.things):
            colour = _far(rng, taken)
            shape = rng.choice(SHAPES)
            angle = rng.uniform(-0.2, 0.2)
            return Thing(shape, colour, scene.style, x, y, radius, angle, jittered(rng, colour))
    return None


def thing_mask(thing: Thing, size: int, grow: float = 0.0) -> np.ndarray:
    """Coverage (size, size) in 0 to 1 of the object's outline; `grow` widens it, in units of the side."""
    out = np.zeros((size, size), np.float32)
    place = _window(thing, size, grow)
    out[place] = _coverage(thing, size, place, grow)
    return out


def _polygons(thing: Thing, scale: float, place: tuple[slice, slice]) -> list[np.ndarray]:
    """The outlines, `scale` pixels to the side, seen from the corner of a window (in the same pixels)."""
    polygons = shapes.placed(thing.shape, (thing.x * scale, thing.y * scale), thing.radius * scale, thing.angle)
    return [polygon - (place[1].start, place[0].start) for polygon in polygons]


def _window(thing: Thing, size: int, grow: float) -> tuple[slice, slice]:
    """Rows and columns that hold the object, widened by `grow` units of the side."""
    points = np.concatenate(_polygons(thing, size, (slice(0, 0), slice(0, 0))))
    margin = grow * size + 2
    low = np.clip(np.floor(points.min(0) - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(points.max(0) + margin), low + 1, size).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _magnified(place: tuple[slice, slice], factor: int) -> tuple[tuple[slice, slice], Image.Image]:
    """The window in pixels `factor` times as fine, and an empty picture of it."""
    rows, columns = (slice(part.start * factor, part.stop * factor) for part in place)
    return (rows, columns), Image.new("L", (columns.stop - columns.start, rows.stop - rows.start), 0)


def _coverage(thing: Thing, size: int, place: tuple[slice, slice], grow: float = 0.0) -> np.ndarray:
    """Coverage in 0 to 1 of the object's outline within a window."""
    s = SUPERSAMPLING
    fine, image = _magnified(place, s)
    draw = ImageDraw.Draw(image)
    for index, polygon in enumerate(_polygons(thing, size * s, fine)):
        flat = [tuple(p) for p in polygon]
        draw.polygon(flat, fill=0 if index else 255)
        if grow > 0:
            line = max(1, round(2 * grow * size * s))
            draw.line([*flat, flat[0], flat[1]], fill=255, width=line, joint="curve")
    height, width = image.height // s, image.width // s
    return np.asarray(image, np.float32).reshape(height, s, width, s).mean((1, 3)) / 255


def _stroke(thing: Thing, size: int, place: tuple[slice, slice], width: float) -> np.ndarray:
    """Coverage of the outline's line alone within a window, `width` in units of the side."""
    factor = SUPERSAMPLING if size <= 128 else 2
    fine, image = _magnified(place, factor)
    draw = ImageDraw.Draw(image)
    for polygon in _polygons(thing, size * factor, fine):
        flat = [tuple(p) for p in polygon]
        draw.line([*flat, flat[0], flat[1]], fill=255, width=max(2, round(width * size * factor)), joint="curve")
    return np.asarray(image.reduce(factor), np.float32) / 255


def _blend(canvas: np.ndarray, alpha: np.ndarray, colour) -> None:
    canvas += alpha[..., None] * (np.asarray(colour, np.float32) - canvas)


def draw_thing(canvas: np.ndarray, thing: Thing) -> None:
    """Draws onto `canvas` (size, size, 3), values 0 to 255."""
    size = canvas.shape[0]
    # Lines and the glow of neon (three box blurs' reach) lie outside the outline.
    place = _window(thing, size, 0.3 * thing.radius + 0.01)
    canvas = canvas[place]
    alpha = _coverage(thing, size, place)
    rgb = np.asarray(thing.rgb, np.float32)
    rows, columns = (np.arange(part.start, part.stop, dtype=np.float32) / size for part in place)
    xx, yy = columns[None, :], rows[:, None]
    if thing.style == "flat":
        _blend(canvas, alpha, rgb)
    elif thing.style == "outlined":
        _blend(canvas, alpha, rgb)
        line = (250, 250, 250) if thing.colour == "black" else (24, 24, 26)
        _blend(canvas, _stroke(thing, size, place, max(0.08 * thing.radius, 0.008)), line)
    elif thing.style == "shaded":
        light = np.hypot(xx - thing.x + 0.4 * thing.radius, yy - thing.y + 0.45 * thing.radius) / thing.radius
        glow = np.clip(1 - light / 0.9, 0, 1)[..., None] * 0.55
        shade = np.clip((light - 0.7) / 1.1, 0, 1)[..., None] * 0.45
        colour = (rgb + (255 - rgb) * glow) * (1 - shade)
        canvas += alpha[..., None] * (colour - canvas)
    elif thing.style == "pencil":
        angle = thing.angle * 3 + 0.8
        phase = (xx * math.cos(angle) + yy * math.sin(angle)) / (0.16 * thing.radius)
        hatch = np.clip(np.abs((phase % 1) - 0.5) * 5 - 0.4, 0, 1)
        _blend(canvas, alpha * (0.45 + 0.55 * hatch), rgb)
        _blend(canvas, _stroke(thing, size, place, max(0.05 * thing.radius, 0.007)), rgb * 0.75)
    elif thing.style == "neon":
        line = _stroke(thing, size, place, 0.16 * thing.radius)
        glow = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(0.12 * thing.radius * size))
        canvas += (np.asarray(glow, np.float32) / 255 * 0.9)[..., None] * (rgb - canvas)
        _blend(canvas, alpha * 0.35, rgb)
        _blend(canvas, line, rgb)
        _blend(canvas, _stroke(thing, size, place, 0.05 * thing.radius) * 0.6, (255, 255, 255))
    else:
        raise ValueError(f"style is {thing.style}; allowed: {', '.join(STYLES)}")


def draw_background(scene: Scene, size: int) -> np.ndarray:
    """The scene without its objects: (size, size, 3), float32, 0 to 255."""
    return backgrounds.draw(scene.background, scene.colours, scene.background_seed, size)


def draw_scene(scene: Scene, size: int) -> np.ndarray:
    """The whole scene: (size, size, 3), float32, 0 to 255."""
    canvas = draw_background(scene, size)
    for thing in scene.things:
        draw_thing(canvas, thing)
    return canvas
