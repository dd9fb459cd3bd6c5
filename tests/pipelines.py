"""Tiny pipelines of diffusers' real classes with random weights, made without a network connection."""

import json

import diffusers
import torch

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embeddings(number, *names):
    """One row of made-up embeddings, as every pipeline names them."""
    shapes = {"pooled": (1, 8), "mask": (1, 5)}
    rows = {}
    for place, name in enumerate(names):
        kind = "mask" if "mask" in name else "pooled" if "pooled" in name else "text"
        seed = 100 * number + place
        rows[name] = torch.ones(1, 5) if kind == "mask" else normal(seed, *shapes.get(kind, (1, 5, 8)))
    return rows


PLAIN = ("prompt_embeds", "negative_prompt_embeds")
POOLED = (*PLAIN, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
MASKED = (*PLAIN, "prompt_attention_mask", "negative_prompt_attention_mask")


def vae(channels=4, **settings):
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4), down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=channels,
        up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=1, layers_per_block=1, **settings,
    )  # fmt: skip


def unet(**settings):
    return diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, norm_num_groups=2, attention_head_dim=2, **settings,
    )  # fmt: skip


def stable_diffusion(scheduler=None, text_encoder=None, tokenizer=None):
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False, **BETAS)
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder, tokenizer=tokenizer, unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl():
    net = unet(
        addition_embed_type="text_time", addition_time_embed_dim=2, transformer_layers_per_block=1,
        projection_class_embeddings_input_dim=20, use_linear_projection=True,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="leading", **BETAS)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=net,
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip


def stable_diffusion_3():
    net = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=8, pooled_projection_dim=8, out_channels=4,
        pos_embed_max_size=16,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(shift_factor=0.06), transformer=net,
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def flux(**settings):
    net = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**{"use_dynamic_shifting": True} | settings)
    return diffusers.FluxPipeline(
        scheduler=scheduler, vae=vae(1, shift_factor=0.0), text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, transformer=net,
    )  # fmt: skip


def flux_2(kind=diffusers.Flux2Pipeline, guidance_embeds=True):
    net = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, timestep_guidance_channels=8, axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=guidance_embeds,
    )  # fmt: skip
    codec = diffusers.AutoencoderKLFlux2(
        sample_size=16, down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,), layers_per_block=1, latent_channels=1, norm_num_groups=1, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return kind(scheduler=scheduler, vae=codec, text_encoder=None, tokenizer=None, transformer=net)


def flux_2_klein():
    return flux_2(diffusers.Flux2KleinPipeline, guidance_embeds=False)


def qwen_image(text_encoder=None, tokenizer=None):
    net = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    codec = diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    return diffusers.QwenImagePipeline(
        scheduler=scheduler, vae=codec, text_encoder=text_encoder, tokenizer=tokenizer, transformer=net
    )


def z_image():
    net = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=8,
        axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae(shift_factor=0.0), text_encoder=None,
        tokenizer=None, transformer=net,
    )  # fmt: skip


def pixart():
    net = diffusers.PixArtTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=8,
        in_channels=4, cross_attention_dim=24, out_channels=8, norm_type="ada_norm_single",
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS)
    return diffusers.PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=net, scheduler=scheduler
    )


def sana():
    net = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
        sample_size=8,
    )  # fmt: skip
    blocks, scales = ("ResBlock", "EfficientViTBlock"), ((), (5,))
    codec = diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales, encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        downsample_block_type="conv", upsample_block_type="interpolate", scaling_factor=0.41,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.SanaPipeline(tokenizer=None, text_encoder=None, vae=codec, transformer=net, scheduler=scheduler)


def dit():
    net = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=4, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, num_embeds_ada_norm=1000,
    )  # fmt: skip
    return diffusers.DiTPipeline(transformer=net, vae=vae(), scheduler=diffusers.DDIMScheduler())


def ltx():
    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=1, caption_channels=8,
    )  # fmt: skip
    scaling, four = (True, True, False, False), (8, 8, 8, 8)
    codec = diffusers.AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=four, decoder_block_out_channels=four,
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling, decoder_inject_noise=(False,) * 5, upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4, timestep_conditioning=False, patch_size=1, patch_size_t=1, encoder_causal=True,
        decoder_causal=False,
    )  # fmt: skip
    return diffusers.LTXPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=codec, text_encoder=None, tokenizer=None,
        transformer=net,
    )  # fmt: skip


def wan():
    net = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip
    codec = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.WanPipeline(tokenizer=None, text_encoder=None, transformer=net, vae=codec, scheduler=scheduler)


def made(make, *args, **settings):
    """The pipeline with weights that are always the same, silent."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = make(*args, **settings)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_encoder(path):
    """The folder, with a whole Stable Diffusion in it, text encoder and tokenizer included."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = [*"abcdt", *(f"{letter}</w>" for letter in "abcdt"), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        bos_token_id=10, eos_token_id=11, pad_token_id=11, hidden_size=8, intermediate_size=8, num_attention_heads=1,
        num_hidden_layers=1, vocab_size=12, max_position_embeddings=7, initializer_range=1.0,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(str(path), model_max_length=7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPTextModel(config)
    made(stable_diffusion, None, encoder, tokenizer).save_pretrained(path)
    return path
