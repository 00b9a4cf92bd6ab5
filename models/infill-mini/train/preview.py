"""A sheet of inpaintings by the model as it is: for each held-out task the holed picture, the result and the truth."""

import argparse

import numpy as np
import torch
from diffusers import StableDiffusionXLInpaintPipeline
from PIL import Image

from common import add_machine, machine
from pool import HELD_OUT
from tasks import random_task


def pipeline(folder: str) -> StableDiffusionXLInpaintPipeline:
    """The model in float32, silent."""
    pipe = StableDiffusionXLInpaintPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def paint(pipe, picture, mask, prompt: str, seed: int, steps: int, strength: float, guidance: float) -> np.ndarray:
    """Inpaints (size, size, 3) uint8 where `mask` is true; outside the hole the picture stays what it was."""
    size = picture.shape[0]
    result = pipe(
        prompt=prompt, image=Image.fromarray(picture), mask_image=Image.fromarray(mask.astype(np.uint8) * 255),
        width=size, height=size, num_inference_steps=steps, strength=strength, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed), output_type="np",
    ).images[0]  # fmt: skip
    result = (result * 255).round().astype(np.uint8)
    return np.where(mask[..., None], result, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..")
    parser.add_argument("--out", default="sheets/preview.png")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=6.0)
    add_machine(parser)
    a = parser.parse_args()
    pipe, cells = pipeline(a.model).to(machine(a)), []
    for index in range(a.count):
        task = random_task(HELD_OUT + index, a.size)
        print(index, task.kind, repr(task.caption), flush=True)
        painted = paint(pipe, task.picture, task.mask, task.caption, index, a.steps, a.strength, a.guidance)
        holed = np.where(task.mask[..., None], np.uint8(127), task.picture)
        cells.append(np.concatenate([holed, painted, task.picture], axis=1))
    rows = [np.concatenate(cells[i : i + a.columns], axis=1) for i in range(0, len(cells), a.columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 128 // a.size, sheet.height * 128 // a.size)).save(a.out, optimize=True)


if __name__ == "__main__":
    main()
