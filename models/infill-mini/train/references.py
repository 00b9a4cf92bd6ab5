"""Reference pictures: an object alone, at another place and size and on another background than in the task."""

import random

import numpy as np

from scenes import Scene, Thing, draw_background, draw_thing, random_scene

SIDE = 64


def reference(rng: random.Random, thing: Thing) -> np.ndarray:
    """A picture (SIDE, SIDE, 3) uint8 of the same object."""
    scene: Scene = random_scene(rng, 1)
    while thing.colour in scene.colours:
        scene = random_scene(rng, 1)
    canvas = draw_background(scene, SIDE)
    radius = rng.uniform(0.28, 0.44)
    place = {"x": rng.uniform(radius, 1 - radius), "y": rng.uniform(radius, 1 - radius), "radius": radius}
    draw_thing(canvas, Thing(**(vars(thing) | place | {"angle": rng.uniform(-0.2, 0.2)})))
    return (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)
