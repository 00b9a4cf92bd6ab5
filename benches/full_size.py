#!/usr/bin/env python3
"""Checkpoints of full size with random weights, and diffusers' side of the comparison.

    full_size.py make OUT sdxl|sd15       writes OUT in diffusers' layout, f16: 6.9 or 2.1 GB
    full_size.py run OUT [--dtype f32|bf16|f16] [--device cpu] [--side 512] [--steps 3]

`make` takes the published configurations in ../tests/fixtures/configs and fills every tensor of theirs, under its
published name, with random values. `run` prints the same JSON line as full_size.rs.
"""
import argparse
import json
import os
import resource
import shutil
import time

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = f"{HERE}/../tests/fixtures"
CONFIGS = {"sdxl": "sdxl-inpainting-0.1", "sd15": "sd-1.5-inpainting"}
OLD_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def network(component, config):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        if component == "unet":
            return UNet2DConditionModel.from_config(config)
        if component == "vae":
            return AutoencoderKL.from_config(config)
        kind = CLIPTextModelWithProjection if component == "text_encoder_2" else CLIPTextModel
        return kind(CLIPTextConfig.from_dict(config))


@torch.no_grad()
def random_tensors(model):
    """f16 values of the size that keeps activations near one; drawn once, since only their spread matters here."""
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            yield name, torch.full(parameter.shape, float(name.endswith("weight")), dtype=torch.float16)
        else:
            repeats = -(-parameter.numel() // pool.numel())
            values = pool.repeat(repeats)[:parameter.numel()].view(parameter.shape)
            yield name, (values / parameter[0].numel() ** 0.5).half()


def make(out, which):
    source = f"{FIXTURES}/configs/{CONFIGS[which]}"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if not os.path.isdir(f"{source}/{component}"):
            continue
        with open(f"{source}/{component}/config.json", encoding="utf-8") as f:
            config = json.load(f)
        tensors = dict(random_tensors(network(component, config)))
        text = component.startswith("text_encoder")
        if text:
            tensors = {k if k.startswith("text_") else f"text_model.{k}": v for k, v in tensors.items()}
        if which == "sd15" and text:
            tensors["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
        if which == "sd15" and component == "vae":
            for new, old in OLD_NAMES.items():
                tensors = {k.replace(new, old): v for k, v in tensors.items()}
        file = f"{out}/{component}/{'model' if text else 'diffusion_pytorch_model'}.safetensors"
        save_file(tensors, file, metadata={"format": "pt"})
        print(file, f"{os.path.getsize(file) / 1e9:.2f} GB", flush=True)
    for folder in ("tokenizer", "tokenizer_2"):
        if os.path.isdir(f"{out}/{folder}"):
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(f"{FIXTURES}/clip-tokenizer/{file}", f"{out}/{folder}/{file}")
    with open(f"{out}/model_index.json", encoding="utf-8") as f:
        index = json.load(f)
    for absent in ("safety_checker", "feature_extractor"):
        if absent in index:
            index[absent] = [None, None]
    with open(f"{out}/model_index.json", "w", encoding="utf-8") as f:
        json.dump(index, f, indent=2)


def run(folder, dtype, device, side, steps):
    from diffusers import AutoPipelineForInpainting
    from PIL import Image

    began, gpu = time.time(), device.startswith("cuda")
    formats = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    pipe = AutoPipelineForInpainting.from_pretrained(folder, torch_dtype=formats[dtype], local_files_only=True)
    pipe.to(device).set_progress_bar_config(disable=True)
    load = time.time() - began
    seconds = {"unet": [], "decode": []}

    def timed(key, call):
        wait = torch.cuda.synchronize if gpu and key == "decode" else lambda: None

        def wrapper(*args, **kwargs):
            wait()
            start = time.time()
            out = call(*args, **kwargs)
            wait()
            seconds[key].append(time.time() - start)
            return out
        return wrapper

    pipe.unet.forward = timed("unet", pipe.unet.forward)
    pipe.vae.decode = timed("decode", pipe.vae.decode)
    picture, mask = (Image.open(f"{FIXTURES}/images/astronaut{end}.png") for end in ("", "-mask"))
    for _ in range(2 if gpu else 1):  # kernels are loaded and chosen at their first use
        for spans in seconds.values():
            spans.clear()
        start = time.time()
        pipe("a photo of an astronaut in a garden", image=picture.convert("RGB"), mask_image=mask, height=side, width=side,
             num_inference_steps=steps, strength=1.0, guidance_scale=6.0 if hasattr(pipe, "text_encoder_2") else 7.5,
             generator=torch.Generator("cpu").manual_seed(1))
        whole = time.time() - start
    peak = torch.cuda.max_memory_reserved() / 1e9 if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # A GPU runs behind the calls: there a step is what the whole run less the decoding takes, shared among the steps.
    step = (whole - sum(seconds["decode"])) / steps if gpu else min(seconds["unet"])
    print(json.dumps(dict(program="diffusers", device=device, format=dtype, load_s=load,
                          encode_s=whole - sum(seconds["unet"]) - sum(seconds["decode"]), unet_step_s=step,
                          vae_decode_s=min(seconds["decode"]), run_s=whole, peak_gb=peak)))


def main():
    parser = argparse.ArgumentParser(description="Full-size checkpoints and diffusers' side of the comparison.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("out")
    maker.add_argument("which", choices=CONFIGS)
    runner = commands.add_parser("run")
    runner.add_argument("folder")
    runner.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="f32")
    runner.add_argument("--device", default="cpu")
    runner.add_argument("--side", type=int, default=512)
    runner.add_argument("--steps", type=int, default=3)
    a = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if a.command == "make":
        make(a.out, a.which)
    else:
        run(a.folder, a.dtype, a.device, a.side, a.steps)


if __name__ == "__main__":
    main()
