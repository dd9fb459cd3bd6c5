"""Marks of models: different for all that changes a sample, and a checkpoint that answers for no other model."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import diffusers
import networks
import pipelines
import pytest
import torch
from diffusers.utils.peft_utils import set_adapter_layers, set_weights_and_activate_adapters
from pipelines import PLAIN, embeddings, made
from tiny_marks import Lora, adapted, loras, model, shaded

import redraft
from redraft import RedraftError, preset
from redraft.core.checkpoint import Checkpoint
from redraft.core.content import content
from redraft.core.task import Problems
from redraft.models.adapters import images, text
from redraft.models.class_digits import DigitsModel
from redraft.models.guidance import guided
from redraft.models.nets.digit import DigitNet
from redraft.models.tokens import Convention, TokenModel
from redraft.samplers import Scheduled

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")  # numpy's, inside it


@pytest.fixture
def peft(monkeypatch):
    """What diffusers looks for in PEFT: the class of its layers."""
    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "peft.tuners", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "peft.tuners.tuners_utils", SimpleNamespace(BaseTunerLayer=Lora))


# ---- pipelines


def controlnet(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = diffusers.ControlNetModel(
            block_out_channels=(4, 8), layers_per_block=1, in_channels=4, norm_num_groups=2, attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=8,
            conditioning_embedding_out_channels=(4, 4),
        )  # fmt: skip
    return net.eval().requires_grad_(False)


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    words = CLIPTextModel(CLIPTextConfig(vocab_size=12, max_position_embeddings=7, projection_dim=8, **small))
    sight = CLIPVisionConfig(image_size=8, patch_size=4, projection_dim=8, **small)
    return {"text_encoder": words.eval(), "image_encoder": CLIPVisionModelWithProjection(sight).eval()}


def controlled():
    """A Stable Diffusion with all that it may have: encoders of texts and of pictures, and two ControlNets."""
    return made(
        lambda: diffusers.StableDiffusionControlNetPipeline(
            vae=pipelines.vae(), tokenizer=None, unet=pipelines.unet(), controlnet=[controlnet(), controlnet(1)],
            scheduler=diffusers.DDIMScheduler(clip_sample=False, **pipelines.BETAS), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False, **clip(),
        )
    )  # fmt: skip


def two_stages():
    """A Wan whose second network walks the low levels."""
    pipeline = made(pipelines.wan)
    second = made(pipelines.wan).transformer
    pipeline.register_modules(transformer_2=second)
    pipeline.register_to_config(boundary_ratio=0.5)
    return pipeline


def nudged(net):
    """One weight of the last matrix, in its last place, by a little."""
    weight = [weight for weight in net.parameters() if weight.ndim > 1][-1]
    weight.data.view(-1)[-1] += 1e-3


@pytest.mark.parametrize(
    ("make", "part"),
    [
        *((controlled, name) for name in ("unet", "vae", "text_encoder", "image_encoder", "controlnet")),
        *((two_stages, name) for name in ("transformer", "transformer_2", "vae")),
    ],
)
def test_a_weight_of_any_network_is_in_the_mark(make, part):
    pipeline = make()
    one = model(pipeline)  # made before: nothing of it is kept
    before = one.mark
    assert one.mark == before
    nudged(getattr(pipeline, part))
    assert one.mark != before
    assert one.mark == model(pipeline).mark


def test_fewer_control_networks_another_tokenizer_and_a_part_that_is_gone_are_in_the_mark(tmp_path):
    pipeline = controlled()
    marks = [model(pipeline).mark]
    pipeline.controlnet.nets = pipeline.controlnet.nets[:1]
    marks.append(model(pipeline).mark)
    pipeline.register_modules(image_encoder=None)
    marks.append(model(pipeline).mark)
    pipelines.with_encoder(tmp_path)
    tokenizer = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path).tokenizer
    pipeline.register_modules(tokenizer=tokenizer)
    marks.append(model(pipeline).mark)
    tokenizer(["ab", "c"], padding="max_length", truncation=True, max_length=7)
    assert model(pipeline).mark == marks[-1]  # texts were cut and filled up, which its files say of it as well
    tokenizer.add_tokens(["<new>"])
    marks.append(model(pipeline).mark)
    assert len(set(marks)) == 5


def test_adapters_their_scales_and_their_fusion_are_in_the_mark(peft):
    pipeline = made(pipelines.stable_diffusion)
    one, net = model(pipeline), pipeline.unet
    marks = {"none": one.mark}
    adapted(net)
    assert len(loras(net)) > 1
    for name, names, weights in (
        ("one", ["one"], [1.0]),
        ("two", ["two"], [1.0]),
        ("half", ["two"], [0.5]),
        ("both", ["one", "two"], [1.0, 1.0]),
    ):
        set_weights_and_activate_adapters(net, names, weights)
        marks[name] = one.mark
    set_adapter_layers(net, enabled=False)
    marks["disabled"] = one.mark
    set_adapter_layers(net, enabled=True)
    assert one.mark == marks["both"]
    loras(net)[0].lora_A["one"].data[0, -1] += 1e-4
    marks["other weights"] = one.mark
    for layer in loras(net):
        layer.fuse()
    fused = one.mark
    for layer in loras(net):
        layer.merged_adapters.clear()
    marks |= {"fused": fused, "fused, unsaid": one.mark}
    assert len(set(marks.values())) == len(marks) == 9


def test_scheduler_guidance_and_settings_of_the_pipeline_are_in_the_mark():
    pipeline = made(pipelines.flux)
    marks = [model(pipeline, **given).mark for given in ({}, {"guidance_scale": 3.0}, {"guidance_scale": 3.5})]
    for change in (
        lambda: pipeline.scheduler.set_shift(2.0),
        lambda: setattr(pipeline, "scheduler", diffusers.FlowMatchHeunDiscreteScheduler()),
        lambda: setattr(pipeline, "scheduler", diffusers.FlowMatchHeunDiscreteScheduler(shift=2.0)),
        lambda: pipeline.vae.enable_tiling(),
        lambda: pipeline.vae.register_to_config(scaling_factor=0.5),
        lambda: setattr(pipeline, "vae_scale_factor", 4),
    ):
        change()
        marks.append(model(pipeline).mark)
    assert len(set(marks)) == len(marks)


def test_free_u_is_in_the_mark():
    pipeline = made(pipelines.stable_diffusion)
    one = model(pipeline)
    marks = [one.mark]
    for strength in (1.1, 1.2):
        pipeline.enable_freeu(s1=0.9, s2=0.2, b1=strength, b2=1.4)
        marks.append(one.mark)
    pipeline.disable_freeu()
    assert len({*marks, one.mark}) == 3
    assert one.mark == marks[0]


def scaled_by(factor):
    return lambda *given: factor


def dotted(value):
    """Numbers of which only one in the middle tells."""
    numbers = torch.zeros(1, 3, 64, 64)
    numbers[0, 1, 32, 32] = value
    return numbers


OPTIONS = {
    "tensors": [dotted(0.25), dotted(0.5)],
    "arrays": [dotted(0.25).numpy(), dotted(0.5).numpy()],
    "pictures": [shaded(0), shaded(1)],
    "lists of pictures": [[shaded(0), shaded(1)], [shaded(0), shaded(2)]],
    "mappings": [{"scale": 0.5}, {"scale": 1.0}],
    "functions": [scaled_by(1), scaled_by(2)],
    "texts": ["bad", "worse"],
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_options_are_in_the_mark_by_content(kind):
    pipeline = made(pipelines.dit)
    (first, other), copy = OPTIONS[kind], OPTIONS[kind][0]
    copy = copy.clone() if isinstance(copy, torch.Tensor) else copy.copy() if hasattr(copy, "copy") else copy
    assert model(pipeline, image=first).mark == model(pipeline, image=copy).mark
    assert model(pipeline, image=first).mark != model(pipeline, image=other).mark


def test_an_option_without_content_is_refused_by_name():
    pipeline, example = made(pipelines.stable_diffusion), embeddings(0, *PLAIN)
    for given in (torch.Generator(), [torch.Generator()]):
        with pytest.raises(RedraftError, match="option 'generator' holds a torch.*Generator, .*: leave it out"):
            redraft.load_model(pipeline, example=example, generator=given)


def test_weights_of_another_type_have_another_mark():
    pipeline = made(pipelines.stable_diffusion)
    single = model(pipeline).mark
    pipeline.unet.to(torch.bfloat16)
    halved = model(pipeline).mark
    pipeline.unet.to(torch.float32)
    assert len({single, halved, model(pipeline).mark}) == 3  # what was rounded stays rounded


def test_a_search_leaves_the_mark_as_it_was():
    """What a call leaves in the pipeline, its scheduler and its networks is no part of it."""
    for make, names, options in (
        (pipelines.stable_diffusion, PLAIN, {"guidance_scale": 3.0}),
        (pipelines.wan, PLAIN, {"height": 16, "width": 16, "num_frames": 5}),
        (pipelines.qwen_image, ("prompt_embeds", "prompt_embeds_mask"), {"height": 16, "width": 16}),
    ):
        pipeline, example = made(make), embeddings(0, *names)
        before = model(pipeline, **options).mark
        one = redraft.load_model(pipeline, example=example, **options)
        assert one.mark == before
        result = redraft.run(redraft.Generate(sampler=Scheduled(2)), one, redraft.prompts(one, [example]))
        assert one.mark == before == result.settings["weights"]


def test_a_checkpoint_of_another_adapter_is_refused_and_says_so(peft, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))
    pipeline, example = made(pipelines.stable_diffusion), embeddings(0, *PLAIN)
    adapted(pipeline.unet)
    one = redraft.load_model(pipeline, example=example, guidance_scale=3.0)
    problems, how = redraft.prompts(one, [embeddings(1, *PLAIN)]), redraft.Generate(sampler=Scheduled(3))
    first = redraft.run(how, one, problems, checkpoint=tmp_path)
    for names, weights in ((["two"], [1.0]), (["one"], [0.25])):
        set_weights_and_activate_adapters(pipeline.unet, names, weights)
        with pytest.raises(RedraftError, match=r"is from a run with other settings \(mark, weights\): delete it or"):
            redraft.run(how, one, problems, checkpoint=tmp_path)
        assert not torch.allclose(redraft.run(how, one, problems).samples, first.samples)
    set_weights_and_activate_adapters(pipeline.unet, ["one"], [1.0])
    assert torch.equal(redraft.run(how, one, problems, checkpoint=tmp_path).samples, first.samples)


# ---- models of tokens, and ours


def test_an_adapter_of_a_token_model_is_in_its_mark_and_in_a_run_s_settings(peft):
    net = networks.Llada().requires_grad_(False)
    net.head = Lora(net.head)
    one = text.llada(net)
    before = one.mark
    nothing = torch.zeros(2, 4, dtype=torch.long)
    problems, how = (
        Problems(torch.arange(2), nothing, nothing.bool()),
        redraft.Generate(sampler=preset("llada", steps=2)),
    )
    assert redraft.run(how, one, problems).settings["weights"] == before
    set_weights_and_activate_adapters(net, ["two"], [1.0])
    assert redraft.run(how, one, problems).settings["weights"] == one.mark != before


def test_settings_of_token_models_are_in_the_mark():
    net = networks.Llada().requires_grad_(False)
    net.config.eos_token_id = 3
    block = networks.Llada2().requires_grad_(False)
    plain = text.llada(net)
    marks = [
        plain.mark,
        text.llada(net, forbid_eos=True).mark,
        text.llada(net, mask=5).mark,
        *(guided(plain, scale).mark for scale in (2.0, 2.0000001)),  # of one name
        *(text.llada2(block, block=size).mark for size in (2, 4)),
        replace(plain, graph=torch.eye(4)).mark,
    ]
    assert len(set(marks)) == len(marks)
    assert plain.mark == text.llada(net).mark


def test_a_model_of_one_s_own_is_told_by_its_function():
    def made_of(table):
        return TokenModel("own", lambda x, state: (table[x], None), Convention(4, 3))

    one, other = torch.zeros(4, 4), torch.eye(4)
    assert made_of(one).mark == made_of(one.clone()).mark != made_of(other).mark


def test_the_decoder_of_codes_and_the_encoder_of_prompts_are_in_the_mark():
    net, codes = networks.Halton().requires_grad_(False), torch.nn.Embedding(16, 3)
    one = images.halton(net, 4, 16, classes=5, decode=codes)
    before = one.mark
    codes.weight.data[15, 2] += 1e-4
    assert one.mark != before


def test_guidance_of_digits_is_told_exactly():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = DigitsModel(DigitNet(pixels=64, width=8, layers=1, classes=10), digest="0" * 12)
    assert len({plain.mark, *(plain.guided(scale).mark for scale in (2.0, 2.0000001))}) == 3


def test_critics_and_what_holds_them_are_told(tmp_path):
    plain = text.llada(networks.Llada().requires_grad_(False))

    def critic(bias):
        class Own:
            reads, vocabulary = "proposal", plain.convention.vocabulary

            def __call__(self, x, features):
                return x + self.bias

        own = Own()
        own.bias = bias
        return own

    assert len({plain.mark, *(plain.with_critic("own", critic(bias)).mark for bias in (0.0, 1.0))}) == 3
    assert content(plain) == content(text.llada(networks.Llada().requires_grad_(False)))
