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
    return _coverage(thing, size, grow)[0]


def _coverage(thing: Thing, size: int, grow: float, hole: bool = True) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Coverage of the whole picture and the window that it does not leave."""
    s = SUPERSAMPLING
    polygons = shapes.placed(thing.shape, (thing.x * size, thing.y * size), thing.radius * size, thing.angle)
    points = np.concatenate(polygons)
    margin = grow * size + 2
    low = np.clip(np.floor(points.min(0) - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(points.max(0) + margin), low + 1, size).astype(int)
    width, height = (high - low).tolist()
    image = Image.new("L", (width * s, height * s), 0)
    draw = ImageDraw.Draw(image)
    for index, polygon in enumerate(polygons):
        if index and not hole:
            continue
        flat = [tuple(p) for p in (polygon - low) * s]
        draw.polygon(flat, fill=0 if index else 255)
        if grow > 0:
            line = max(1, round(2 * grow * size * s))
            draw.line([*flat, flat[0], flat[1]], fill=255, width=line, joint="curve")
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    out = np.zeros((size, size), np.float32)
    out[window] = np.asarray(image, np.float32).reshape(height, s, width, s).mean((1, 3)) / 255
    return out, window


def _stroke(thing: Thing, size: int, width: float) -> np.ndarray:
    """Coverage of the outline alone, `width` in units of the side."""
    s = SUPERSAMPLING
    image = Image.new("L", (size * s, size * s) if size <= 128 else (size * 2, size * 2), 0)
    scale = image.width
    draw = ImageDraw.Draw(image)
    for polygon in shapes.placed(thing.shape, (thing.x * scale, thing.y * scale), thing.radius * scale, thing.angle):
        flat = [tuple(p) for p in polygon]
        draw.line([*flat, flat[0], flat[1]], fill=255, width=max(2, round(width * scale)), joint="curve")
    return np.asarray(image.reduce(scale // size), np.float32) / 255


def _blend(canvas: np.ndarray, alpha: np.ndarray, colour) -> None:
    canvas += alpha[..., None] * (np.asarray(colour, np.float32) - canvas)


def draw_thing(canvas: np.ndarray, thing: Thing) -> None:
    """Draws onto `canvas` (size, size, 3), values 0 to 255."""
    size = canvas.shape[0]
    alpha, _ = _coverage(thing, size, 0.0)
    rgb = np.asarray(thing.rgb, np.float32)
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if thing.style == "flat":
        _blend(canvas, alpha, rgb)
    elif thing.style == "outlined":
        _blend(canvas, alpha, rgb)
        line = (250, 250, 250) if thing.colour == "black" else (24, 24, 26)
        _blend(canvas, _stroke(thing, size, max(0.08 * thing.radius, 0.008)), line)
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
        _blend(canvas, _stroke(thing, size, max(0.05 * thing.radius, 0.007)), rgb * 0.75)
    elif thing.style == "neon":
        line = _stroke(thing, size, 0.16 * thing.radius)
        glow = Image.fromarray((line * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(0.12 * thing.radius * size))
        canvas += (np.asarray(glow, np.float32) / 255 * 0.9)[..., None] * (rgb - canvas)
        _blend(canvas, alpha * 0.35, rgb)
        _blend(canvas, line, rgb)
        _blend(canvas, _stroke(thing, size, 0.05 * thing.radius) * 0.6, (255, 255, 255))
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
