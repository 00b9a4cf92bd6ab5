"""The networks' sizes. Every key is one of diffusers' or transformers' own."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TEXT_1, TEXT_2, POOLED, SIZE_DIM = 64, 128, 128, 32
CARRIERS = 12  # channels of the autoencoder that carry colours through it from the start


def autoencoder() -> AutoencoderKL:
    """Factor 8, four latent channels, no attention in the middle."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False, sample_size=512, scaling_factor=1.0, force_upcast=False,
    )  # fmt: skip


@torch.no_grad()
def initialise(vae: AutoencoderKL) -> AutoencoderKL:
    """Starts the autoencoder as "shrink the colours eightfold, enlarge them again", with quiet noise everywhere else.

    Group norm takes the level out of whatever passes it, so that with the usual start colours come through only after
    thousands of steps. Here each of the first three groups of four channels carries one colour, its negative and two
    constants beside which group norm leaves the level alone; SiLU is undone by silu(x) - silu(-x) = x.
    """
    level = 2.0
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight *= 0.1
            module.conv2.bias.zero_()
        if isinstance(module, torch.nn.Conv2d) and ("resnets" not in name or name.endswith("conv_shortcut")):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            module.weight *= 0.3
            module.bias.zero_()
            if name.endswith("samplers.0.conv") or name.endswith("conv_shortcut"):
                same = torch.arange(CARRIERS)
                module.weight[:CARRIERS] *= 0.1
                if "downsamplers" in name:
                    module.weight[same, same, :2, :2] += 0.25
                else:
                    centre = module.kernel_size[0] // 2
                    module.weight[same, same, centre, centre] += 1
    for half in (vae.encoder, vae.decoder):
        half.conv_in.weight[:CARRIERS] *= 0.1
        half.conv_out.weight *= 0.1
        for colour in range(3):
            half.conv_in.weight[4 * colour, colour, 1, 1] += 1
            half.conv_in.weight[4 * colour + 1, colour, 1, 1] -= 1
            half.conv_in.bias[4 * colour + 2] = level
            half.conv_in.bias[4 * colour + 3] = -level
            half.conv_out.weight[colour, 4 * colour, 1, 1] += 1.5
            half.conv_out.weight[colour, 4 * colour + 1, 1, 1] -= 1.5
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight *= 0.2
        conv.weight[torch.arange(3), torch.arange(3)] += 1
    vae.quant_conv.bias[4:] = -5
    return vae


def unet() -> UNet2DConditionModel:
    """SDXL's inpainting UNet in miniature: 9 channels in, sizes and pooled words beside the time."""
    return UNet2DConditionModel(
        sample_size=64, in_channels=9, out_channels=4, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(32, 64, 128, 160), attention_head_dim=(1, 2, 4, 5),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1, use_linear_projection=True, cross_attention_dim=TEXT_1 + TEXT_2,
        addition_embed_type="text_time", addition_time_embed_dim=SIZE_DIM,
        projection_class_embeddings_input_dim=POOLED + 6 * SIZE_DIM,
    )  # fmt: skip


def text_encoders(vocabulary: int) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two text encoders; the UNet reads the last but one state of each."""
    shared = dict(
        vocab_size=vocabulary, num_hidden_layers=3, max_position_embeddings=77,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    first = CLIPTextConfig(
        hidden_size=TEXT_1, intermediate_size=4 * TEXT_1, num_attention_heads=2, hidden_act="quick_gelu",
        projection_dim=TEXT_1, pad_token_id=vocabulary - 1, **shared,
    )  # fmt: skip
    second = CLIPTextConfig(
        hidden_size=TEXT_2, intermediate_size=4 * TEXT_2, num_attention_heads=4, hidden_act="gelu",
        projection_dim=POOLED, pad_token_id=0, **shared,
    )  # fmt: skip
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)
