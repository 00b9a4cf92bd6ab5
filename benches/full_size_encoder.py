#!/usr/bin/env python3
"""Image encoders of full size with random weights, and transformers' side of the comparison.

    full_size_encoder.py make OUT vit-l|vit-h|vit-bigg     writes OUT as published, f16: 0.6, 1.3 or 3.7 GB
    full_size_encoder.py run OUT                           prints a JSON line, and leaves OUT/reference.safetensors

`run` encodes a photograph of the fixtures in float32, and then layer by layer in float64: the difference is the noise
floor that infill is held to.
"""
import json
import os
import resource
import sys
import time

import torch
from full_size import FIXTURES, random_tensors
from safetensors.torch import save_file


def make(out, which):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with open(f"{FIXTURES}/configs/clip-vision/{which}.json", encoding="utf-8") as f:
        config = json.load(f)
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))
    tensors = dict(random_tensors(model))
    positions = tensors["vision_model.embeddings.position_embedding.weight"].shape[0]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(positions).unsqueeze(0)
    os.makedirs(out, exist_ok=True)
    with open(f"{out}/config.json", "w", encoding="utf-8") as f:
        json.dump({"architectures": ["CLIPVisionModelWithProjection"], **config}, f, indent=2)
    save_file(tensors, f"{out}/model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def exact(model, x):
    """The outputs in float64, with no more than one layer held in it at a time."""
    def by(module, x, **options):
        y = module.double()(x, **options)
        module.float()
        return y[0] if isinstance(y, tuple) else y

    network = model.vision_model
    states = [by(network.pre_layrnorm, by(network.embeddings, x.double()))]
    for layer in network.encoder.layers:
        states = [states[-1], by(layer, states[-1], attention_mask=None)]
    return by(model.visual_projection, by(network.post_layernorm, states[-1][:, 0])), states[0]


@torch.no_grad()
def run(folder):
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    began = time.time()
    model = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    load = time.time() - began
    picture = Image.open(f"{FIXTURES}/images/astronaut.png").convert("RGB")
    pixels = CLIPImageProcessor()(picture, return_tensors="pt").pixel_values
    began = time.time()
    out = model(pixels, output_hidden_states=True)
    encode = time.time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = dict(image_embeds=out.image_embeds, penultimate=out.hidden_states[-2])
    floors = {f"floor.{name}": (found[name].double() - value).abs().max().reshape(1)
              for name, value in zip(found, exact(model, pixels))}
    save_file({"pixel_values": pixels, **{k: v.clone() for k, v in found.items()}, **floors},
              f"{folder}/reference.safetensors")
    print(json.dumps(dict(program="transformers", load_s=load, encode_s=encode, peak_gb=peak)))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.argv[1:2] == ["make"] and len(sys.argv) == 4:
        make(*sys.argv[2:])
    elif sys.argv[1:2] == ["run"] and len(sys.argv) == 3:
        run(sys.argv[2])
    else:
        sys.exit(__doc__)
