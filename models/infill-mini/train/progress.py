"""Measures what the UNet reaches on held-out crops while it still trains: colours and shapes by words, or by a reference
picture where the words leave both open, or empty words. Draws a sheet."""

import argparse
import random

import numpy as np
import torch
from diffusers import StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPVisionModelWithProjection

import checker
import text
from common import add_machine, machine
from cuts import FULL, crop
from pool import HELD_OUT
from references import reference
from scenes import draw_background, draw_thing
from tasks import Task
from train_image_encoder import normalised

BATCH = 12  # pictures that are painted together
OPEN_WORDS = "a shape"


def behind(task: Task) -> np.ndarray:
    """The task's picture without the objects that are asked for, values 0 to 255."""
    canvas = draw_background(task.scene, len(task.mask))
    for thing in task.scene.things:
        if thing not in task.targets:
            draw_thing(canvas, thing)
    return np.clip(canvas, 0, 255)


def tasks(a: argparse.Namespace) -> list[tuple[int, np.ndarray, Task, tuple[slice, slice]]]:
    """The held-out crops of the kind that is asked for, with their seeds."""
    found, seed = [], HELD_OUT
    while len(found) < a.count:
        seed += 1
        pixels, task, place = crop(seed, a.size)
        mask = pixels[..., 3] > 127
        if task.kind == ("background" if a.empty else "object") and mask.any() and not mask.all():
            found.append((seed, pixels, task, place))
    return found


class Referring:
    """The image encoder and the adapter of a folder, put into a pipeline."""

    def __init__(self, pipe: StableDiffusionXLInpaintPipeline, folder: str):
        pipe.load_ip_adapter(folder, subfolder="ip_adapter", weight_name="infill-mini.safetensors", image_encoder_folder=None)
        source = f"{folder}/image_encoder"
        self.encoder = CLIPVisionModelWithProjection.from_pretrained(source, dtype=torch.float32).to(pipe.device)

    @torch.no_grad()
    def arguments(self, pictures: list[np.ndarray]) -> dict:
        """What the pipeline is given for these pictures: embeds without any first, as guidance has them."""
        embeds = self.encoder(normalised(torch.from_numpy(np.stack(pictures)).to(self.encoder.device))).image_embeds[:, None]
        return {"ip_adapter_image_embeds": [torch.cat([torch.zeros_like(embeds), embeds])]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="..", help="the folder with autoencoder, tokenizers and scheduler")
    parser.add_argument("--trained", default="work/words-to-picture", help="the folder with UNet and text encoders")
    parser.add_argument("--out", default="sheets/progress.png")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--empty", action="store_true", help="holes in the background, without words")
    parser.add_argument("--references", help="a folder with an adapter and its image encoder; the words are then open")
    add_machine(parser)
    a = parser.parse_args()
    device = machine(a)
    text_1, text_2 = text.load(a.trained)
    pipe = StableDiffusionXLInpaintPipeline.from_pretrained(
        a.model, dtype=torch.float32, text_encoder=text_1, text_encoder_2=text_2,
        unet=UNet2DConditionModel.from_pretrained(f"{a.trained}/unet", dtype=torch.float32),
    ).to(device)  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    referring = Referring(pipe, a.references) if a.references else None
    held_out = tasks(a)
    cells, colours, both, either, error, error_mean = [], 0, 0, 0, 0.0, 0.0
    for start in range(0, a.count, BATCH):
        some = held_out[start : start + BATCH]
        holed = [(pixels[..., :3], pixels[..., 3] > 127) for _, pixels, _, _ in some]
        shown = [reference(random.Random(seed), task.targets[0]) for seed, _, task, _ in some] if referring else []
        images = pipe(
            prompt=[OPEN_WORDS if referring else task.caption for _, _, task, _ in some],
            image=[Image.fromarray(picture) for picture, _ in holed],
            mask_image=[Image.fromarray(mask.astype(np.uint8) * 255) for _, mask in holed],
            width=a.size, height=a.size, num_inference_steps=a.steps, strength=1.0, guidance_scale=a.guidance,
            generator=[torch.Generator().manual_seed(seed - HELD_OUT) for seed, *_ in some], output_type="np",
            original_size=(FULL, FULL), target_size=(FULL, FULL),
            **(referring.arguments(shown) if referring else {}),
        ).images  # fmt: skip
        for image, (picture, mask), (_, _, task, place) in zip(images, holed, some):
            painted = np.where(mask[..., None], (image * 255).round().astype(np.uint8), picture)
            if a.empty:
                error += np.abs(painted[mask].astype(float) - picture[mask]).mean()
                error_mean += np.abs(picture[~mask].mean(0) - picture[mask]).mean()
            else:
                colour, shape, _ = checker.examine(painted, behind(task)[place], mask)
                thing = task.targets[0]
                colours += colour == thing.colour
                both += colour == thing.colour and shape == thing.shape
                either += colour == thing.colour or shape == thing.shape
            cells.append(np.concatenate([np.where(mask[..., None], np.uint8(127), picture), painted, picture], axis=1))
    if a.empty:
        print(f"error of empty words: {error / error_mean:.2f} of that of the mean colour")
    else:
        print(f"right colour {colours / a.count:.2f}, right colour and shape {both / a.count:.2f}, one of them {either / a.count:.2f}")
    shown = min(a.count // 4 * 4, 24)
    rows = [np.concatenate(cells[i : i + 4], axis=1) for i in range(0, shown, 4)]
    Image.fromarray(np.concatenate(rows)).save(a.out, optimize=True)


if __name__ == "__main__":
    main()
