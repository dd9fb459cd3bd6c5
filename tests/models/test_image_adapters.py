"""Image tokens: channels-first logits, text conditions, the empty prompt, and pixels."""

import json
import shutil

import networks
import pytest
import torch

import redraft
from redraft import RedraftError
from redraft.core.state import State
from redraft.models import hub
from redraft.models.adapters import images

SIDE, CODES, MASK = 4, 8, 31


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline of tiny networks, as the hub stores one."""
    from diffusers import UVit2DModel, VQModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    path = tmp_path_factory.mktemp("amused")
    words = [*"abcdt", *(f"{letter}</w>" for letter in "abcdt"), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(path), model_max_length=7)
    tokenizer.save_pretrained(path / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        UVit2DModel(
            hidden_size=8, use_bias=False, hidden_dropout=0.0, cond_embed_dim=8, micro_cond_encode_dim=2,
            micro_cond_embed_dim=10, encoder_hidden_size=8, vocab_size=MASK + 1, codebook_size=CODES, in_channels=8,
            block_out_channels=8, num_res_blocks=1, downsample=False, upsample=False, block_num_heads=1,
            num_hidden_layers=1, num_attention_heads=1, attention_dropout=0.0, intermediate_size=8, layer_norm_eps=1e-6,
            ln_elementwise_affine=True, sample_size=SIDE,
        ).save_pretrained(path / "transformer")  # fmt: skip
        VQModel(
            act_fn="silu", block_out_channels=[8], down_block_types=["DownEncoderBlock2D"], in_channels=3,
            latent_channels=8, layers_per_block=1, norm_num_groups=8, num_vq_embeddings=CODES, out_channels=3,
            sample_size=8, up_block_types=["UpDecoderBlock2D"], mid_block_add_attention=False,
            lookup_from_codebook=True,
        ).save_pretrained(path / "vqvae")  # fmt: skip
        config = CLIPTextConfig(
            bos_token_id=10, eos_token_id=11, pad_token_id=11, hidden_size=8, intermediate_size=8, projection_dim=8,
            num_attention_heads=1, num_hidden_layers=2, vocab_size=12, max_position_embeddings=7, initializer_range=1.0,
        )  # fmt: skip
        CLIPTextModelWithProjection(config).save_pretrained(path / "text_encoder")
    (path / "model_index.json").write_text(json.dumps({"_class_name": "AmusedPipeline"}))
    return path


@pytest.fixture(scope="module")
def model(folder):
    return redraft.load_model(str(folder), device="cpu")


def start(problems, model):
    state = problems.state()
    return state.to(torch.full_like(state.x, model.convention.mask), state.t)


def test_logits_are_those_of_the_network_token_by_token(model):
    state = start(redraft.prompts(model, ["a cat", "bad"]), model)
    state.x[0, 6] = 3
    logits = model.predict(state).logits
    assert logits.shape == (2, SIDE * SIDE, CODES)
    about = torch.tensor([[4.0, 4.0, 0.0, 0.0, 6.0]]).expand(2, 5)
    raw = model.net(state.x.view(2, 4, 4), state.cond["text"], state.cond["pooled"], about)
    for row in range(4):
        for column in range(4):
            assert torch.equal(logits[:, 4 * row + column], raw[:, :, row, column])


def test_the_condition_is_the_encoders_and_the_prompt_matters(model, folder):
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    problems = redraft.prompts(model, ["a cat", "bad"])
    assert (model.shape, problems.x.shape, problems.frozen.any().item()) == ((16,), (2, 16), False)
    assert {name: tuple(value.shape) for name, value in problems.cond.items()} == {"text": (2, 7, 8), "pooled": (2, 8)}
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(["a cat", "bad"], padding="max_length", max_length=7, return_tensors="pt").input_ids
    encoder = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval()
    with torch.no_grad():
        encoded = encoder(ids, output_hidden_states=True)
    assert torch.equal(problems.cond["text"], encoded.hidden_states[1])  # of the input and two layers
    assert torch.equal(problems.cond["pooled"], encoded.text_embeds)
    one, other = model.predict(start(problems, model)).logits
    assert not torch.allclose(one, other)


def test_without_condition_is_the_empty_prompt(model):
    state = start(redraft.prompts(model, ["a cat", "bad"]), model)
    empty = start(redraft.prompts(model, ["", ""]), model)
    torch.testing.assert_close(
        model.predict(model.null(state)).logits, model.predict(empty).logits, atol=1e-5, rtol=1e-5
    )
    guided = redraft.guided(model, 3.0).predict(state).logits
    c, u = model.predict(state).logits, model.predict(empty).logits
    torch.testing.assert_close(guided, u + 3 * (c - u), atol=1e-4, rtol=1e-4)


def test_pictures_have_pixels_between_zero_and_one(model):
    codes = torch.arange(32).view(2, 16) % CODES
    pictures = model.text(codes)
    assert pictures.shape == (2, 3, 4, 4)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    turned = model.text(codes.view(2, 4, 4).mT.flatten(1))
    assert not torch.allclose(turned, pictures)


def test_a_run_draws_codes_only(model):
    from redraft.core.streams import Streams
    from redraft.processes.mask import MaskDiffusion

    assert isinstance(model.process, MaskDiffusion)
    problems = redraft.prompts(model, ["a cat", "bad"])
    noisy = model.process.prior(problems.state(), problems.state().free, Streams.root(0, problems.ids))
    assert (noisy.x == MASK).all()
    clean = model.process.step(noisy, model.predict(noisy), torch.zeros_like(noisy.t), Streams.root(0, problems.ids)).x
    assert clean.max() < CODES


def test_an_option_is_checked_and_passed_on(folder):
    low = redraft.load_model(str(folder), device="cpu", aesthetic=1.0)
    state = start(redraft.prompts(low, ["a cat"]), low)
    usual = redraft.load_model(str(folder))
    assert not torch.allclose(low.predict(state).logits, usual.predict(state).logits)
    assert low.mark != usual.mark  # a checkpoint of the one is not the other's
    with pytest.raises(RedraftError, match="unknown option 'aestetic'; did you mean 'aesthetic'"):
        redraft.load_model(str(folder), aestetic=1.0)


def test_every_network_and_setting_is_in_the_mark(folder, monkeypatch):
    def loaded(**options):
        return redraft.load_model(str(folder), device="cpu", **options)

    parts, found = [], hub._amused_parts
    monkeypatch.setattr(hub, "_amused_parts", lambda *given: parts.append(found(*given)) or parts[-1])
    marks = {loaded().mark, loaded().mark, loaded(crop=(8, 0)).mark, loaded(dtype="bfloat16").mark}
    for place in range(3):  # network, decoder of codes, encoder of texts
        one = loaded()
        [weight for weight in parts[-1][place].parameters() if weight.ndim > 1][0].data.view(-1)[-1] += 1e-3
        marks.add(one.mark)
    assert len(marks) == 6


def test_half_precision_leaves_the_decoder_whole(folder, tmp_path):
    """As the pipeline does, where the decoder's configuration says that it overflows."""
    shutil.copytree(folder, tmp_path / "amused")
    about = tmp_path / "amused" / "vqvae" / "config.json"
    for upcast, dtype in ((True, torch.float32), (False, torch.float16)):
        about.write_text(json.dumps(json.loads(about.read_text()) | {"force_upcast": upcast}))
        net, decoder, encoder, _ = hub._amused_parts(str(tmp_path / "amused"), None, torch.float16, torch.device("cpu"))
        assert (net.dtype, decoder.dtype, encoder.dtype) == (torch.float16, dtype, torch.float16)


def test_a_pipeline_comes_with_its_tokenizer_and_needs_a_dtype_by_name(folder):
    with pytest.raises(RedraftError, match="comes with its tokenizer: leave out `tokenizer`"):
        redraft.load_model(str(folder), tokenizer="other")
    with pytest.raises(RedraftError, match="loads no dtype 'auto': name one"):
        redraft.load_model(str(folder), dtype="auto")


def test_a_part_that_is_missing_is_one_sentence(folder, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "AmusedPipeline"}))
    with pytest.raises(RedraftError, match="cannot be loaded by diffusers.UVit2DModel") as caught:
        redraft.load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


# ---- Halton-MaskGIT


def test_the_class_and_its_absence_reach_the_network():
    net = networks.Halton().requires_grad_(False)
    model = images.halton(net, side=3, codebook=16)
    state = start(redraft.prompts(model, [1, 4]), model)
    state.x[1, 5] = 7
    grid, keep = state.x.view(2, 3, 3), torch.zeros(2, dtype=torch.bool)
    logits = model.predict(state).logits
    assert torch.equal(logits[..., :16], net(grid, torch.tensor([1, 4]), keep)[..., :16])
    assert (logits[..., 16] == -torch.inf).all()
    dropped = model.predict(model.null(state)).logits
    assert torch.equal(dropped[..., :16], net(grid, torch.tensor([1, 4]), ~keep)[..., :16])
    guided = redraft.guided(model, 1 + 3.0).predict(state).logits[..., :16]  # their w = 3
    torch.testing.assert_close(guided, (4 * logits - 3 * dropped)[..., :16], atol=1e-4, rtol=1e-4)


def test_a_network_that_was_being_trained_drops_nothing():
    net = networks.Halton().train()
    images.halton(net, side=3, codebook=16)
    assert not net.training


def test_pictures_need_the_decoder():
    codes = torch.arange(18).view(2, 9) % 16
    plain = images.halton(networks.Halton(), side=3, codebook=16)
    with pytest.raises(RedraftError, match="without the decoder"):
        plain.text(codes)
    shown = images.halton(networks.Halton(), side=3, codebook=16, decode=lambda grid: grid[:, None] * 0.2 - 1)
    assert torch.equal(shown.text(codes), ((codes.view(2, 1, 3, 3) * 0.2 - 1).clamp(-1, 1) / 2 + 0.5))


def test_a_state_without_condition_is_one_sentence():
    model = images.halton(networks.Halton(), side=3, codebook=16)
    bare = torch.full((1, 9), 16)
    state = State(bare, torch.ones(1, 9), torch.zeros(1, 9, dtype=torch.bool), torch.arange(1))
    with pytest.raises(RedraftError, match="conditioned on 'label': make the problems by `redraft.prompts"):
        model.predict(state)


@pytest.mark.parametrize("label", [5, -1, "cat", True])
def test_what_is_no_class_number_is_one_sentence(label):
    model = images.halton(networks.Halton(), side=3, codebook=16, classes=5)
    with pytest.raises(RedraftError, match=f"takes class numbers from 0 to 4 for prompts, not {label!r}"):
        redraft.prompts(model, [1, label])
