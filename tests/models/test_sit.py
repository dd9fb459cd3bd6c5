"""SiT: the names of its weights, its mathematics beside diffusers', the direction of its time, guidance, files."""

import argparse

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import redraft
from redraft import RedraftError
from redraft.core.streams import Streams
from redraft.models.adapters.sit import SCALE, SiTModel
from redraft.models.nets.sit import SiT, sizes
from redraft.samplers import sample
from redraft.testing import check_model

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")  # numpy's, inside it
SIZES = {
    "side": 8, "patch": 2, "channels": 4, "out_channels": 8, "width": 32, "depth": 2, "heads": 4, "hidden": 128,
    "classes": 11,
}  # fmt: skip
BLOCK = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
RELEASED = [
    "x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear", "final_layer.adaLN_modulation.1",
    *(f"blocks.{n}.{part}" for n in range(2) for part in BLOCK),
]  # fmt: skip


def weights(**changes):
    """Random weights, none of them zero."""
    net = SiT(**SIZES | changes)
    generator = torch.Generator().manual_seed(0)
    return {k: 0.2 * torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()}


def model(folder, given=None, **options):
    path = folder / "tiny.safetensors"
    save_file(given or weights(), path)
    return redraft.load_model(path, "cpu", heads=4, **options)


def states(made, levels=(0.3, 0.8), classes=(3, 7)):
    problems = redraft.prompts(made, list(classes))
    x = torch.randn(len(classes), *made.shape, generator=torch.Generator().manual_seed(1))
    return problems.state().to(x, torch.tensor(levels)[:, None])


def test_names_and_sizes_are_those_of_the_released_checkpoints():
    names = {f"{name}.{kind}" for name in RELEASED for kind in ("weight", "bias")}
    assert set(weights()) == names | {"pos_embed", "y_embedder.embedding_table.weight"}
    assert sizes(weights(), heads=4) == SIZES
    with torch.device("meta"):  # SiT-XL/2 at 256 pixels has 675 million weights, by the paper
        large = SiT(32, 2, 4, 8, 1152, 28, 16, 4608, 1001)
    released = dict(large.state_dict())
    assert sizes(released)["heads"] == 16
    assert 674e6 < sum(value.numel() for name, value in released.items() if name != "pos_embed") < 676e6


def as_diffusers(given):
    """The same network as a DiTTransformer2DModel."""
    net = diffusers.DiTTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, num_embeds_ada_norm=10, norm_eps=1e-6, dropout=0.0,
    )  # fmt: skip
    both = {"weight", "bias"}
    new = {}
    pairs = {
        "x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out_2",
        "final_layer.adaLN_modulation.1": "proj_out_1",
    }  # fmt: skip
    for n in range(2):
        there = f"transformer_blocks.{n}"
        embedder = f"{there}.norm1.emb"
        parts = {"attn.proj": "attn1.to_out.0", "mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}
        pairs |= {f"blocks.{n}.{ours}": f"{there}.{theirs}" for ours, theirs in parts.items()}
        pairs[f"blocks.{n}.adaLN_modulation.1"] = f"{there}.norm1.linear"
        for kind in both:
            thirds = given[f"blocks.{n}.attn.qkv.{kind}"].chunk(3)
            new |= {f"{there}.attn1.to_{name}.{kind}": third for name, third in zip("qkv", thirds, strict=True)}
            new[f"{embedder}.timestep_embedder.linear_1.{kind}"] = given[f"t_embedder.mlp.0.{kind}"]
            new[f"{embedder}.timestep_embedder.linear_2.{kind}"] = given[f"t_embedder.mlp.2.{kind}"]
        new[f"{embedder}.class_embedder.embedding_table.weight"] = given["y_embedder.embedding_table.weight"]
        net.transformer_blocks[n].norm1.emb.time_proj.downscale_freq_shift = 0  # of SiT and DiT themselves
    for ours, theirs in pairs.items():
        new |= {f"{theirs}.{kind}": given[f"{ours}.{kind}"] for kind in both}
    net.load_state_dict(new)
    net.pos_embed.pos_embed = given["pos_embed"]
    return net.eval()


@torch.no_grad()
def test_the_network_is_that_of_dit():
    given = weights()
    ours, theirs = SiT(**SIZES), as_diffusers(given)
    ours.load_state_dict(given)
    x, time, classes = torch.randn(3, 4, 8, 8), torch.tensor([0.0, 0.4, 1.0]), torch.tensor([0, 5, 10])
    expected = theirs(x, time, classes).sample[:, :4]  # the rest is the variance
    torch.testing.assert_close(ours(x, time, classes), expected, atol=2e-5, rtol=1e-4)
    assert expected.std() > 0.1


class Gaussian(nn.Module):
    """The velocity for data N(m, s^2) on SiT's path: x = u x1 + (1 - u) e, v = E[x1 - e | x]."""

    mean, spread = 1.5, 0.4

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, time, classes):
        u = time[:, None, None, None].double()
        m = self.mean + classes[:, None, None, None]
        variance = u**2 * self.spread**2 + (1 - u) ** 2
        gain = (u * self.spread**2 - (1 - u)) / variance  # Cov(x1 - e, x) / Var(x)
        return (m + gain * (x - u * m)).to(x)


def gaussian(**options):
    return SiTModel("gaussian", Gaussian(), 2, 4, 3, **options)


def test_time_runs_against_the_level_and_the_velocity_to_the_data():
    made = gaussian()
    state = states(made, (0.3, 1.0), (0, 2))
    t, m = state.t[:, :, None, None, None], 1.5 + torch.tensor([0.0, 2.0])[:, None, None, None, None]
    gain = (1 - t) * 0.16 / ((1 - t) ** 2 * 0.16 + t**2)
    torch.testing.assert_close(made.predict(state).clean, m + gain * (state.x - (1 - t) * m))


@pytest.mark.parametrize(("order", "error"), [(1, 4e-2), (2, 1e-3)])
def test_a_walk_is_the_flow_s_own_map_from_noise_to_data(order, error):
    made = gaussian()
    problems = redraft.prompts(made, [0, 2])
    state, streams = problems.state(), Streams.root(0, problems.ids)
    noisy = made.process.prior(state, state.free, streams.fold("prior"))
    clean = sample(redraft.Parallel(60, order), made, noisy, streams.fold("initial"))
    exact = 1.5 + torch.tensor([0.0, 2.0])[:, None, None, None, None] + 0.4 * noisy.x
    assert (clean.x - exact).abs().max() < error
    assert (clean.x + exact).abs().max() > 1


def test_guidance_is_of_three_channels_and_against_no_class(tmp_path):
    plain, guided = model(tmp_path), model(tmp_path, guidance_scale=2.5)
    state = states(plain)
    nothing = states(plain, classes=(10, 10))
    velocities = [(plain.predict(s).clean - s.x) / s.t[:, :, None, None, None] for s in (state, nothing)]
    mixed = velocities[1] + 2.5 * (velocities[0] - velocities[1])
    mixed[:, :, 3] = velocities[0][:, :, 3]
    found = (guided.predict(state).clean - state.x) / state.t[:, :, None, None, None]
    torch.testing.assert_close(found, mixed, atol=1e-4, rtol=1e-4)
    assert (plain.nfe_per_row, guided.nfe_per_row) == (1, 2)
    assert plain.mark != guided.mark
    all_four = model(tmp_path, guidance_scale=2.5, guided_channels=4).predict(state).clean
    assert not torch.allclose(all_four[:, :, 3], guided.predict(state).clean[:, :, 3])


def test_a_search_counts_heun_s_evaluations_and_follows_the_model_s_contract(tmp_path):
    made = model(tmp_path, guidance_scale=2.0)
    problems = redraft.prompts(made, [1, 2, 3])
    check_model(made, problems, tolerance=1e-3)
    method = redraft.BestOfN(3, at_once=3, sampler=redraft.Parallel(4, order=2))
    verifier = lambda samples, problems: samples.flatten(1).mean(1)  # noqa: E731
    result = redraft.run(method, made, problems, verifier=verifier, progress=False)
    assert result.samples.shape == (3, 4, 8, 8)
    assert result.ledger.nfe.tolist() == [3 * 7 * 2] * 3
    alone = redraft.run(method, made, problems[1:2], verifier=verifier, progress=False)
    torch.testing.assert_close(alone.samples, result.samples[1:2], atol=1e-3, rtol=1e-3)


def test_pictures_are_made_by_an_autoencoder(tmp_path):
    codec = diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, latent_channels=4).eval()
    made = model(tmp_path, vae=codec)
    latents = torch.randn(5, 1, 4, 8, 8)
    pictures = made.decode(latents)
    assert pictures.shape == (5, 3, 8, 8)
    with torch.no_grad():
        expected = codec.decode(latents[:, 0] / SCALE).sample / 2 + 0.5
        back = codec.encode(2 * pictures - 1).latent_dist.mean * SCALE
    torch.testing.assert_close(pictures, expected.clamp(0, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.encode(pictures), back[:, None])
    codec.save_pretrained(tmp_path / "vae")
    torch.testing.assert_close(model(tmp_path, vae=tmp_path / "vae").decode(latents), pictures)


def test_files_and_folders_hold_the_same_model(tmp_path):
    given = weights()
    state = states(model(tmp_path, given))
    expected = model(tmp_path, given).predict(state).clean
    torch.save({"ema": given, "steps": 3}, tmp_path / "training.pt")
    (tmp_path / "folder").mkdir()
    torch.save({f"module.{name}": value for name, value in given.items()}, tmp_path / "folder" / "any.pth")
    for path in (tmp_path / "training.pt", tmp_path / "folder"):
        assert torch.equal(redraft.load_model(str(path), "cpu", heads=4).predict(state).clean, expected)
    half = model(tmp_path, given, dtype="bfloat16")
    assert next(half.net.parameters()).dtype == torch.bfloat16
    assert half.predict(state).clean.dtype == torch.float32
    torch.testing.assert_close(half.predict(state).clean, expected, atol=0.2, rtol=0.1)


def test_training_checkpoints_and_names_of_dit(tmp_path):
    """SiT's train.py keeps its settings beside the weights; DiT's weights have the same names and another meaning."""
    torch.save({"ema": weights(), "args": argparse.Namespace(model="SiT-XL/2")}, tmp_path / "0050000.pt")
    made = redraft.load_model(tmp_path / "0050000.pt", "cpu", heads=4)
    assert torch.equal(made.net.pos_embed, weights()["pos_embed"])
    torch.save(weights(), tmp_path / "DiT-XL-2-256x256.pt")
    with pytest.raises(RedraftError, match="is called as DiT's weights are, .* load 'facebook/DiT-XL-2-256'"):
        redraft.load_model(tmp_path / "DiT-XL-2-256x256.pt", "cpu", heads=4)


class Unsafe:
    pass


def test_what_is_wrong_is_one_sentence(tmp_path):
    torch.save({"ema": weights(), "args": Unsafe()}, tmp_path / "unsafe.pt")
    with pytest.raises(RedraftError, match="cannot be read as tensors only: save the weights alone"):
        redraft.load_model(tmp_path / "unsafe.pt", "cpu")
    with pytest.raises(RedraftError, match="there is no file"):
        redraft.load_model("nowhere/SiT-XL-2-256.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RedraftError, match="not the weights of a SiT"):
        redraft.load_model(tmp_path / "other.safetensors")
    save_file(weights(), tmp_path / "tiny.safetensors")
    with pytest.raises(RedraftError, match="not of a released size: give heads="):
        redraft.load_model(tmp_path / "tiny.safetensors")
    incomplete = weights()
    del incomplete["blocks.1.attn.proj.bias"]
    with pytest.raises(RedraftError, match=r"is not a SiT: Missing key.*blocks\.1\.attn\.proj\.bias"):
        model(tmp_path, incomplete)
    with pytest.raises(RedraftError, match="unknown option 'guidance'; did you mean 'guidance_scale'"):
        model(tmp_path, guidance=2)
    made = model(tmp_path)
    with pytest.raises(RedraftError, match="takes class numbers from 0 to 9"):
        redraft.prompts(made, [12])
    with pytest.raises(RedraftError, match="takes class numbers"):
        redraft.prompts(made, ["a cat"])
    assert redraft.prompts(made, [10]).cond["class_labels"].tolist() == [10]  # none: without condition


def test_memory_that_runs_out_halves_the_batch(tmp_path, monkeypatch):
    made, forward, asked = model(tmp_path), SiT.forward, []

    def small(self, x, time, classes):
        asked.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, time, classes)

    state = states(made, (0.3, 0.8, 0.5, 0.6, 0.1, 0.9, 1.0), (3, 7, 1, 2, 3, 4, 5))
    expected = made.predict(state).clean
    monkeypatch.setattr(SiT, "forward", small)
    torch.testing.assert_close(made.predict(state).clean, expected)
    torch.testing.assert_close(made.predict(state).clean, expected)
    assert asked == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
