"""Measure what search costs above the network: bench/results/pipeline_speed.json.

A small Flux pipeline of diffusers' own classes with random weights, text encoders and decoder included, draws eight
candidates of one prompt in 28 steps, in three ways that take turns:

    batched   the pipeline's own call, all eight at once, embeddings of the prompt given
    redraft   best-of-N: the same noise, the pipeline's own scheduler, every candidate decoded and scored
    one by one   the pipeline's call with the prompt, candidate by candidate

The C library may not give freed memory back to the kernel meanwhile: whether it does depends on what else lies at the
heap's end, and the page faults that follow cost one way or another up to a tenth of the network's own time.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch
from measured import record
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

import redraft
from redraft.core.streams import Streams

PROMPT, CANDIDATES, STEPS, REPEATS = "a cat", 8, 28, 9
CALL = {"height": 48, "width": 48, "max_sequence_length": 16}


HEAP = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def clip() -> dict[str, Any]:
    """A small CLIP text encoder with a tokenizer of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n")
        tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )  # fmt: skip
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def t5() -> dict[str, Any]:
    """A small T5 encoder with a tokenizer of words."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(("<pad>", "</s>", "?", "a", "cat"))}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="?", model_max_length=16
    )
    config = T5Config(vocab_size=8, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    return {"text_encoder_2": T5EncoderModel(config), "tokenizer_2": tokenizer}


def pipeline() -> Any:
    """The pipeline, silent and ready to evaluate."""
    net = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=64, pooled_projection_dim=64, axes_dims_rope=[8, 12, 12],
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=["DownEncoderBlock2D"] * 2, latent_channels=16,
        up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=2, layers_per_block=1, shift_factor=0.0,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    made = diffusers.FluxPipeline(scheduler=scheduler, vae=vae, transformer=net, **clip(), **t5())
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    made.set_progress_bar_config(disable=True)
    return made


def brightness(samples: torch.Tensor, problems: Any) -> torch.Tensor:
    """A verifier that costs nothing."""
    return samples.flatten(1).mean(1)


def noises(model: Any, problems: Any) -> torch.Tensor:
    """The candidates' noise (N, *latent), as best-of-N draws it."""
    state = problems.state().repeat(CANDIDATES)
    chains = Streams.root(0, problems.ids).repeat(CANDIDATES).fold("sample").fold(torch.arange(CANDIDATES))
    noise: torch.Tensor = model.process.prior(state, state.free, chains.fold("prior")).x[:, 0]
    return noise


def ways(made: Any) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    model = redraft.load_model(made, **CALL)
    problems = redraft.prompts(model, [PROMPT])
    given = {name: value.expand(CANDIDATES, *value.shape[1:]) for name, value in problems.cond.items()}
    noise = noises(model, problems)
    method = redraft.BestOfN(CANDIDATES, at_once=CANDIDATES, sampler=redraft.Scheduled(STEPS))
    shared = CALL | {"num_inference_steps": STEPS, "output_type": "pt", "return_dict": False}

    def batched() -> torch.Tensor:
        pictures: torch.Tensor = made(**given, latents=noise, **shared)[0]
        return pictures

    def searched() -> torch.Tensor:
        return redraft.run(method, model, problems, verifier=brightness, progress=False).samples

    def one_by_one() -> torch.Tensor:
        return torch.cat([made(PROMPT, latents=noise[i : i + 1], **shared)[0] for i in range(CANDIDATES)])

    return {"batched": batched, "redraft": searched, "one by one": one_by_one}


def check(named: dict[str, Callable[[], Any]]) -> None:
    """The search finds the best of the pipeline's own pictures."""
    pictures = {name: way() for name, way in named.items()}
    best = brightness(pictures["batched"], None).argmax()
    torch.testing.assert_close(pictures["redraft"][0], pictures["batched"][best], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pictures["one by one"], pictures["batched"], atol=1e-4, rtol=1e-4)


def network_seconds(made: Any, run: Callable[[], Any]) -> float:
    """Seconds of one network call, the median of those that `run` makes."""
    spent, began = [], [0.0]
    before = made.transformer.register_forward_pre_hook(lambda *_: began.append(time.perf_counter()))
    after = made.transformer.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began[-1]))
    run()
    before.remove()
    after.remove()
    return median(spent)


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and the medians of the ratios within each round, whose runs share what else the machine does."""
    ratios = {
        f"redraft over {name}": median(a / b for a, b in zip(seconds["redraft"], seconds[name], strict=True))
        for name in ("batched", "one by one")
    }
    extra = 1000 * (median(seconds["redraft"]) - median(seconds["batched"])) / STEPS
    medians = {name: median(values) for name, values in seconds.items()}
    return {"median_seconds": medians, **ratios, "redraft_extra_milliseconds_per_step": extra}


@torch.no_grad()
def main() -> None:
    """Measure, print and store."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    made = pipeline()
    named = ways(made)
    check(named)
    spent: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in named} for clock in CLOCKS}
    for _ in range(REPEATS):
        for name, way in named.items():
            began = {clock: read() for clock, read in CLOCKS.items()}
            way()
            for clock, read in CLOCKS.items():
                spent[clock][name].append(read() - began[clock])
    results = {
        "candidates": CANDIDATES, "steps": STEPS, "repeats": REPEATS, "threads": torch.get_num_threads(),
        "network_call_seconds": network_seconds(made, named["batched"]),
        **{clock: summary(values) for clock, values in spent.items()},
    }  # fmt: skip
    record("pipeline_speed", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    if not HEAP.items() <= os.environ.items():  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | HEAP)
    main()
