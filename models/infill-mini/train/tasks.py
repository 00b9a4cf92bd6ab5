"""Training samples: a picture, a hole and the words that say what belongs into the hole."""

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import masks
import words
from scenes import Scene, Thing, draw_scene, random_scene, thing_mask


@dataclass
class Task:
    """One sample; `mask` (size, size) bool, true where to repaint."""

    mask: np.ndarray
    caption: str
    kind: str
    scene: Scene
    targets: list[Thing]

    @cached_property
    def picture(self) -> np.ndarray:
        """(size, size, 3) uint8, drawn when it is first asked for."""
        return (np.clip(draw_scene(self.scene, len(self.mask)), 0, 255) + 0.5).astype(np.uint8)


def _phrases(rng: random.Random, things: list[Thing], say_style: bool) -> str:
    return words.join([words.object_phrase(rng, t.colour, t.shape, t.radius, t.style, say_style) for t in things])


def _caption(rng: random.Random, scene: Scene, things: list[Thing], say_background: float) -> str:
    text = rng.choice(words.OPENINGS) + _phrases(rng, things, rng.random() < 0.3)
    if rng.random() < say_background:
        text += " on " + words.background_phrase(rng, scene.background, scene.colours)
    return text


def random_task(seed: int, size: int) -> Task:
    """The task of this seed at `size`: what is drawn does not depend on the size."""
    rng = random.Random(seed)
    kind = rng.choices(("object", "background", "whole", "part", "several"), (66, 20, 4, 4, 6))[0]
    scene = random_scene(rng, rng.randint(2, 3) if kind == "several" else None)
    if kind == "background" and rng.random() < 0.5:
        scene.things = scene.things[: rng.randint(0, 1)]
    targets: list[Thing] = []
    if kind == "object":
        targets = [rng.choice(scene.things)]
        mask = masks.around(rng, targets[0], size)
        scene.things = [t for t in scene.things if t is targets[0] or not (mask & _covered(t, size)).any()]
        caption = _caption(rng, scene, targets, 0.15)
    elif kind == "background":
        mask = masks.free(rng, size) if rng.random() < 0.6 else masks.around(rng, _ghost(rng), size)
        for thing in scene.things:
            mask &= ~(thing_mask(thing, size, 0.03) > 0)
        caption = "" if rng.random() < 0.9 else words.background_phrase(rng, scene.background, scene.colours)
    elif kind == "whole":
        targets = list(scene.things)
        mask = np.ones((size, size), bool)
        if rng.random() < 0.4 and len(targets) > 1:
            kept = targets.pop()
            mask = ~masks.around(rng, kept, size)
            targets = [t for t in targets if (mask & _covered(t, size)).any()]
        caption = _caption(rng, scene, targets, 0.9)
    elif kind == "part":
        mask = masks.free(rng, size)
        targets = [t for t in scene.things if (mask & _covered(t, size)).any()]
        caption = _caption(rng, scene, targets, 0.15) if targets else ""
    else:
        targets = scene.things[:2]
        mask = np.logical_or.reduce([masks.around(rng, t, size) for t in targets])
        if rng.random() < 0.5:
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        scene.things = [t for t in scene.things if t in targets or not (mask & _covered(t, size)).any()]
        caption = _caption(rng, scene, targets, 0.15)
    return Task(mask, caption, kind, scene, targets)


def _covered(thing: Thing, size: int) -> np.ndarray:
    return thing_mask(thing, size, 0.01) > 0


def _ghost(rng: random.Random) -> Thing:
    """An object that is not there: holes of the shape of objects must not mean that there is one."""
    radius = rng.uniform(0.1, 0.25)
    x, y = rng.uniform(radius, 1 - radius), rng.uniform(radius, 1 - radius)
    shape = rng.choice(words.SHAPES)
    return Thing(shape, "red", "flat", x, y, radius, rng.uniform(-0.2, 0.2), (0, 0, 0))
