"""Measures what the model reaches on held-out tasks: words, empty words, strength. Writes a table and a sheet."""

import argparse
import json
import random

import numpy as np
from PIL import Image

import checker
import masks
import words
from common import add_machine, machine
from pool import HELD_OUT
from preview import paint, pipeline
from scenes import draw_background, draw_thing, jittered, random_scene, thing_mask


def rounded(canvas: np.ndarray) -> np.ndarray:
    """To bytes."""
    return (np.clip(canvas, 0, 255) + 0.5).astype(np.uint8)


class Case:
    """A held-out scene with a hole: the picture to start from, what is asked for, and the background behind it."""

    def __init__(self, seed: int, size: int):
        rng = random.Random(HELD_OUT + 10_000_000 + seed)
        scene = random_scene(rng)
        self.thing = rng.choice(scene.things)
        self.mask = masks.around(rng, self.thing, size)
        noun = f"{self.thing.colour} {self.thing.shape}"
        template = rng.choice(words.STYLE_WORDS[scene.style]) if rng.random() < 0.3 else "{}"
        self.prompt = words.article(template.format(noun))
        self.background = draw_background(scene, size)
        empty = self.background.copy()
        for other in scene.things:
            if other is not self.thing and not (self.mask & (thing_mask(other, size, 0.01) > 0)).any():
                draw_thing(empty, other)
        self.true = empty.copy()
        draw_thing(self.true, self.thing)
        # What lies in the hole before: in half of the cases nothing, else another object of the same place and size.
        self.start = empty.copy()
        self.occupied = rng.random() < 0.5
        if self.occupied:
            taken = {self.thing.colour, *scene.colours}
            colour = rng.choice([c for c in words.COLOURS if c not in taken])
            shape = rng.choice([s for s in words.SHAPES if s != self.thing.shape])
            old = type(self.thing)(**(vars(self.thing) | {"colour": colour, "shape": shape, "rgb": jittered(rng, colour)}))
            draw_thing(self.start, old)
        self.empty, self.start, self.true = rounded(empty), rounded(self.start), rounded(self.true)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--skip", nargs="*", default=(), choices=("words", "empty", "strength"))
    parser.add_argument("--out", default="sheets/evaluation")
    add_machine(parser)
    a = parser.parse_args()
    pipe = pipeline(a.model).to(machine(a))
    figures = {k: v for k, v in vars(a).items() if k in ("size", "count", "steps", "strength", "guidance")}
    cells, right_colour, right_both = [], [], []
    error, error_mean, less = 0.0, 0.0, []
    settings = (a.steps, a.strength, a.guidance)
    for seed in range(a.count):
        case = Case(seed, a.size)
        row = [np.where(case.mask[..., None], np.uint8(127), case.start)]
        if "words" not in a.skip:
            painted = paint(pipe, case.start, case.mask, case.prompt, seed, *settings)
            colour, shape, _ = checker.examine(painted, case.background, case.mask)
            right_colour.append(colour == case.thing.colour)
            right_both.append(colour == case.thing.colour and shape == case.thing.shape)
            print(f"{seed:3d} {case.prompt!r:48} {colour} {shape} {'right' if right_both[-1] else ''}", flush=True)
            row.append(painted)
        if "empty" not in a.skip:
            filled = paint(pipe, case.start, case.mask, "", seed, *settings)
            true, hole = case.background[case.mask], case.mask
            mean = case.empty[~hole].mean(0) if (~hole).any() else np.full(3, 127.5)
            error += np.abs(filled[hole] - true).mean()
            error_mean += np.abs(mean - true).mean()
            row.append(filled)
        if "strength" not in a.skip:
            kept = [
                np.abs(paint(pipe, case.true, case.mask, case.prompt, seed, a.steps, s, a.guidance)[case.mask].astype(float)
                       - case.true[case.mask]).mean()
                for s in (0.3, 1.0)
            ]  # fmt: skip
            less.append(kept[0] < kept[1])
        row.append(case.true)
        if seed < 24:
            cells.append(np.concatenate(row, axis=1))
    if right_both:
        figures |= {"right_colour": float(np.mean(right_colour)), "right_colour_and_shape": float(np.mean(right_both))}
    if error_mean:
        figures["empty_error_of_mean_fill"] = error / error_mean
    if less:
        figures["strength_0.3_keeps_more"] = float(np.mean(less))
    print(json.dumps(figures, indent=1))
    with open(a.out + ".json", "w") as file:
        json.dump(figures, file, indent=1)
    columns = 3
    cells = cells[: len(cells) // columns * columns]
    sheet = Image.fromarray(np.concatenate([np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]))
    sheet.resize((sheet.width * 96 // a.size, sheet.height * 96 // a.size)).save(a.out + ".png", optimize=True)


if __name__ == "__main__":
    main()
