"""Verifiers of pictures on tiny networks of the real classes, against brute force and the processors' own path."""

import logging
import os
import pickle

import pytest
import torch
from torch import nn
from toys import Toy, toy_problems

import redraft
from redraft import RedraftError
from redraft.core.streams import Streams
from redraft.processes.flow import RectifiedFlow
from redraft.samplers import Parallel
from redraft.testing import check_verifier
from redraft.verifiers import (
    VQA,
    Aesthetic,
    Agreement,
    CLIPScore,
    Features,
    ImageClassifier,
    ImageReward,
    SelfAgreement,
    VerifierError,
    aesthetic,
    aesthetic_siglip,
    encoders,
    hpsv2,
    image_reward,
    open_clip,
    pickscore,
    pictures,
)
from redraft.verifiers.encoders import Preprocess, pixels, taken
from redraft.verifiers.heads import chain, read_weights, weight_file
from redraft.verifiers.pictures import SCALES, SCORES

WORDS = ["<unk>", "<pad>", "<s>", "</s>", "<image>", "a", "red", "dog", "cat", "on", "roof", "yes", "Yes", "no", "No"]
WORDS += ["Does", "this", "figure", "show", "Please", "answer", "or", "?", ".", '"', ":", "USER", "ASSISTANT"]
PROMPTS = ["a red dog", "a cat", "a cat on a roof", "a red dog"]
SIDE = 16


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """Without the progress bars and hints of transformers."""
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def seeded(make, spread=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        for weight in net.parameters():
            if spread:
                nn.init.normal_(weight, std=spread)
    return net.eval().requires_grad_(False)


def tokenizer(path, length=24, framed=True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        words.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 2), ("</s>", 3)])
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=length, additional_special_tokens=["<image>"], **special
    )
    fast.save_pretrained(path)
    return fast


def clip_processor(path, **settings):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    made = CLIPImageProcessorPil(**sizes | settings)
    made.save_pretrained(path)
    return made


TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
EYE = TOWER | {"image_size": SIDE, "patch_size": 8}
READER = TOWER | {"vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 1, "bos_token_id": 2}
READER |= {"eos_token_id": 3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    path = tmp_path_factory.mktemp("clip")
    net = seeded(lambda: CLIPModel(CLIPConfig(text_config=READER, vision_config=EYE, projection_dim=4)), 0.5)
    net.save_pretrained(path)
    tokenizer(path)
    clip_processor(path)
    return str(path), net


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    path = tmp_path_factory.mktemp("siglip")
    net = seeded(lambda: SiglipModel(SiglipConfig(text_config=READER, vision_config=EYE)), 0.3)
    net.save_pretrained(path)
    tokenizer(path)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(path)
    return str(path), net


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2ForImageClassification
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    path = tmp_path_factory.mktemp("dino")
    names = {"id2label": {0: "dog", 1: "cat", 2: "cow"}, "label2id": {"dog": 0, "cat": 1, "cow": 2}}
    net = seeded(lambda: Dinov2ForImageClassification(Dinov2Config(**EYE, **names)), 0.3)
    net.save_pretrained(path)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    BitImageProcessorPil(**sizes).save_pretrained(path)
    return str(path), net


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    path = tmp_path_factory.mktemp("llava")
    config = LlavaConfig(
        vision_config=EYE | {"model_type": "clip_vision_model"}, image_token_id=4, vision_feature_layer=-1,
        text_config=READER | {"model_type": "llama", "max_position_embeddings": 64, "num_key_value_heads": 2},
    )  # fmt: skip
    net = seeded(lambda: LlavaForConditionalGeneration(config), 0.3)
    net.save_pretrained(path)
    template = (
        "{% for m in messages %}USER : {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT :"
    )
    reader = LlavaProcessor(
        clip_processor(path), tokenizer(path, 64, framed=False), patch_size=8, chat_template=template,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    reader.save_pretrained(path)
    return str(path), net, reader


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def with_prompts(prompts=PROMPTS):
    problems = toy_problems([0] * len(prompts))
    problems.facts["prompt"] = list(prompts)
    return problems


PICTURES = uniform(4, 3, 20, 28)


# ---- samples


def test_pixels_of_every_form_are_one_form():
    problems = toy_problems([0, 0])
    gray, colour, video = uniform(2, 1, 4, 5), uniform(2, 3, 4, 5), uniform(2, 5, 3, 4, 5)
    assert torch.equal(pixels(colour, problems)[:, 0], colour)
    for x in (gray, gray[:, 0]):
        assert torch.equal(pixels(x, problems)[:, 0], gray.expand(-1, 3, -1, -1))
    assert torch.equal(pixels(video, problems)[:, 0], video[:, 2])
    assert torch.equal(pixels(video, problems, 2), video[:, [1, 3]])
    assert torch.equal(pixels(video, problems, 9), video)
    assert pixels(3 * colour - 1, problems).aminmax() == (0, 1)
    assert pixels(colour.double(), problems).dtype == torch.float32


def test_frames_are_taken_from_the_middle_of_equal_parts():
    assert [taken(n, 1) for n in (1, 2, 5, 6)] == [[0], [1], [2], [3]]
    assert taken(9, 3) == [1, 4, 7]
    assert taken(2, 5) == [0, 1]
    with pytest.raises(RedraftError, match="frames is 0"):
        taken(4, 0)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 4, 8, 8), torch.zeros(2, 7), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_picture_is_told_with_its_shape(wrong):
    with pytest.raises(RedraftError, match=r"pictures are floats .* of shape \(2, "):
        pixels(wrong, toy_problems([0, 0]))


def test_a_sample_with_nan_is_named():
    with pytest.raises(VerifierError, match="was given NaN or infinity .sample number 2, for problem 102"):
        pixels(torch.tensor([0.0, 1, torch.inf, 0]).reshape(4, 1, 1, 1), toy_problems([0] * 4))


# ---- preprocessing

KINDS = {
    "clip": ("clip.image_processing_pil_clip", "CLIPImageProcessorPil", {"size": 16, "crop": (16, 16)}),
    "clip-odd": ("clip.image_processing_pil_clip", "CLIPImageProcessorPil", {"size": 17, "crop": (13, 12)}),
    "clip-filled": ("clip.image_processing_pil_clip", "CLIPImageProcessorPil", {"size": 10, "crop": (15, 16)}),
    "siglip": ("siglip.image_processing_pil_siglip", "SiglipImageProcessorPil", {"size": (18, 18)}),
    "dinov2": ("bit.image_processing_pil_bit", "BitImageProcessorPil", {"size": 20, "crop": (16, 16)}),
    "vit": ("vit.image_processing_pil_vit", "ViTImageProcessorPil", {"size": (14, 20)}),
    "blip": ("blip.image_processing_pil_blip", "BlipImageProcessorPil", {"size": (14, 14)}),
    "as-it-is": ("vit.image_processing_pil_vit", "ViTImageProcessorPil", {"do_resize": False}),
}


def image_processor(kind):
    from importlib import import_module

    home, name, settings = KINDS[kind]
    settings, crop = dict(settings), settings.get("crop")
    settings.pop("crop", None)
    if crop:
        settings["crop_size"] = {"height": crop[0], "width": crop[1]}
    if isinstance(size := settings.get("size"), tuple):
        settings["size"] = {"height": size[0], "width": size[1]}
    elif size:
        settings["size"] = {"shortest_edge": size}
    return getattr(import_module(f"transformers.models.{home}"), name)(**settings)


@pytest.mark.parametrize("shape", [(40, 60), (61, 37), (9, 12), (16, 16)])
@pytest.mark.parametrize("kind", [*KINDS])
def test_preprocessing_is_the_processor_s_up_to_its_rounding(kind, shape):
    theirs = image_processor(kind)
    ours = Preprocess.of(theirs)
    sharp = (uniform(3, 3, *shape) * 255).round() / 255
    smooth = (nn.functional.interpolate(uniform(3, 3, 4, 4), shape, mode="bilinear") * 255).round() / 255
    for x in (sharp, smooth):
        expected = theirs(pictures.as_images(x), return_tensors="pt")["pixel_values"]
        assert ours(x).shape == expected.shape
        rounding = 2 / 255 / min(ours.std)  # two passes of resizing, each to 8 bits
        assert (ours(x) - expected).abs().max() <= rounding


@pytest.mark.parametrize(
    ("length", "wanted", "first"), [(299, 224, 38), (297, 224, 36), (301, 224, 38), (221, 224, -1)]
)
def test_the_middle_of_an_odd_rest_is_torchvision_s_where_asked(length, wanted, first):
    """CenterCrop begins at round((299 - 224) / 2) = 38, halves to even, and fills up one more after than before."""
    x = torch.arange(1.0, length + 1).expand(1, 1, 1, length)
    cut = Preprocess(crop=(1, wanted), torchvision=True)(x)[0, 0, 0]
    assert cut[max(-first, 0)] == max(first, 0) + 1
    assert cut[: max(-first, 0)].eq(0).all()
    assert Preprocess(crop=(1, wanted))(x)[0, 0, 0].shape == cut.shape


def test_a_backbone_without_a_pooler_gives_its_first_token(tmp_path):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
        )
        net = ViTModel(config, add_pooling_layer=False).eval()
    net.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    features = Features(str(tmp_path), device="cpu")
    x = uniform(2, 3, 8, 8)
    with torch.no_grad():
        expected = net(pixel_values=features.prepare(x)).last_hidden_state[:, 0]
    torch.testing.assert_close(features(x), expected)


def test_a_processor_that_does_more_is_refused():
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    plain = ViTImageProcessorPil
    for theirs in (ConvNextImageProcessorPil(), plain(resample=1), plain(do_pad=True), plain(do_rescale=False)):
        with pytest.raises(RedraftError, match="pictures cannot be prepared as"):
            Preprocess.of(theirs)


# ---- pictures and prompts


def by_hand(net, path, prompts=PROMPTS, x=PICTURES, **settings):
    """The network's own logits of each picture for its prompt, and its scale."""
    from transformers import AutoImageProcessor, AutoTokenizer

    prepare = Preprocess.of(AutoImageProcessor.from_pretrained(path))
    words = AutoTokenizer.from_pretrained(path)
    found = []
    for row, prompt in enumerate(prompts):
        read = words([prompt], return_tensors="pt", **settings)
        found.append(net(**read, pixel_values=prepare(x[row : row + 1])).logits_per_image[0, 0])
    return torch.stack(found).double()


def test_clip_scores_are_the_network_s_own(clip):
    path, net = clip
    logits = by_hand(net, path)
    cosine = logits / float(net.logit_scale.exp())
    problems = with_prompts()
    assert cosine.min() < -0.01 < 0.01 < cosine.max()
    found = {scale: CLIPScore(path, scale=scale, device="cpu")(PICTURES, problems) for scale in SCALES}
    torch.testing.assert_close(found["cosine"], cosine, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["logit"], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["clipscore"], 2.5 * cosine.clamp_min(0), atol=1e-5, rtol=0)
    prefixed = CLIPScore(path, scale="logit", prefix="a red ", device="cpu")(PICTURES, problems)
    again = by_hand(net, path, ["a red " + prompt for prompt in PROMPTS])
    torch.testing.assert_close(prefixed, again, atol=1e-5, rtol=1e-5)


def test_siglip_scores_are_the_network_s_own_bias_and_padding_included(siglip):
    path, net = siglip
    logits = by_hand(net, path, padding="max_length", max_length=12)
    found = CLIPScore(path, scale="logit", device="cpu")(PICTURES, with_prompts())
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-5)
    assert (by_hand(net, path) - logits).abs().max() > 1e-3  # padding matters


def test_a_long_prompt_is_cut_where_the_network_ends_and_that_is_said_once(clip):
    path, _ = clip
    features = Features(path, texts=True, device="cpu")
    with pytest.warns(UserWarning, match=f"'{path}' reads 12 tokens and was given a text of 62: .* the beginning only"):
        texts = features.read([" ".join(["cat"] * n) for n in (9, 10, 11, 60)])
    features.read([" ".join(["cat"] * 61)])  # a second warning would fail
    assert (texts[0] - texts[1]).abs().max() > 1e-4
    torch.testing.assert_close(texts[1], texts[2])
    torch.testing.assert_close(texts[1], texts[3])


def test_every_prompt_is_read_once(clip, monkeypatch):
    verifier, read = CLIPScore(clip[0], device="cpu"), []
    real = verifier.features._read
    monkeypatch.setattr(verifier.features, "_read", lambda texts: read.append(texts) or real(texts))
    for _ in range(2):
        verifier(PICTURES, with_prompts())
    assert read == [["a red dog", "a cat", "a cat on a roof"]]


def test_verifiers_of_pictures_keep_the_contract(clip, siglip, dino, llava, head):
    verifiers = [
        CLIPScore(clip[0], scale="cosine", device="cpu"),
        CLIPScore(siglip[0], scale="logit", device="cpu"),
        Aesthetic(head, clip[0], device="cpu"),
        ImageClassifier(dino[0], "cat", device="cpu"),
        VQA(llava[0], device="cpu", score="log-odds"),
    ]
    for verifier in verifiers:
        check_verifier(verifier, PICTURES, with_prompts())


def test_videos_are_scored_by_the_frame_in_the_middle_or_the_mean(clip):
    video, problems = uniform(4, 6, 3, 20, 28), with_prompts()

    def score(x, frames=1):
        return CLIPScore(clip[0], scale="cosine", device="cpu", frames=frames)(x, problems)

    torch.testing.assert_close(score(video), score(video[:, 3]), atol=1e-6, rtol=0)
    each = torch.stack([score(video[:, i]) for i in (1, 4)])
    torch.testing.assert_close(score(video, 2), each.mean(0), atol=1e-6, rtol=0)
    assert (each[0] - each[1]).abs().min() > 1e-4


def test_pickscore_is_clip_h_under_its_own_scale(monkeypatch):
    asked = []
    monkeypatch.setattr(pictures, "CLIPScore", lambda **options: asked.append(options))
    pickscore(rows=4)
    pickscore(checkpoint="here")
    processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    both = {"processor_of": processor, "scale": "logit"}
    assert asked[0] == {"checkpoint": "yuvalkirstain/PickScore_v1", "rows": 4} | both
    assert asked[1] == {"checkpoint": "here"} | both


@pytest.fixture(scope="module")
def preference(clip, tmp_path_factory):
    """The tiny CLIP as OpenCLIP keeps it, in a file of the name that is published."""
    theirs = {"logit_scale": clip[1].logit_scale, "text_projection": clip[1].text_projection.weight.T}
    eye, reader = clip[1].vision_model, clip[1].text_model
    theirs |= {
        "visual.class_embedding": eye.embeddings.class_embedding,
        "visual.positional_embedding": eye.embeddings.position_embedding.weight,
        "visual.conv1.weight": eye.embeddings.patch_embedding.weight,
        "visual.proj": clip[1].visual_projection.weight.T,
        "token_embedding.weight": reader.embeddings.token_embedding.weight,
        "positional_embedding": reader.embeddings.position_embedding.weight,
    }
    named = {
        "visual.ln_pre": eye.pre_layrnorm,
        "visual.ln_post": eye.post_layernorm,
        "ln_final": reader.final_layer_norm,
    }
    for prefix, tower in (("visual.", eye), ("", reader)):
        for number, layer in enumerate(tower.encoder.layers):
            block, own = f"{prefix}transformer.resblocks.{number}", layer.self_attn
            for kind in ("weight", "bias"):
                joined = torch.cat([getattr(each, kind) for each in (own.q_proj, own.k_proj, own.v_proj)])
                theirs[f"{block}.attn.in_proj_{kind}"] = joined
            named |= {
                f"{block}.ln_1": layer.layer_norm1, f"{block}.ln_2": layer.layer_norm2,
                f"{block}.attn.out_proj": own.out_proj,
                f"{block}.mlp.c_fc": layer.mlp.fc1, f"{block}.mlp.c_proj": layer.mlp.fc2,
            }  # fmt: skip
    for name, layer in named.items():
        theirs |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    folder = tmp_path_factory.mktemp("hpsv2")
    torch.save({"state_dict": {k: v.data.contiguous() for k, v in theirs.items()}}, folder / "HPS_v2.1_compressed.pt")
    return folder


def test_hpsv2_is_clip_under_the_names_of_open_clip(clip, preference):
    score = hpsv2(preference, clip=clip[0], device="cpu")
    square, problems = uniform(4, 3, 24, 24), with_prompts()
    plain = CLIPScore(clip[0], scale="cosine", device="cpu")
    torch.testing.assert_close(score(square, problems), plain(square, problems), atol=1e-6, rtol=0)
    wide = uniform(4, 3, 32, 64)  # to 8 x 16, and 4 black rows above and below
    whole = Preprocess(size=(8, 16))(wide)
    filled = torch.cat([torch.zeros(4, 3, 4, 16), whole, torch.zeros(4, 3, 4, 16)], 2)
    torch.testing.assert_close(score(wide, problems), plain(filled, problems), atol=1e-6, rtol=0)
    assert (score(wide, problems) - plain(wide, problems)).abs().max() > 1e-3
    check_verifier(score, PICTURES, problems)


def test_other_weights_than_those_of_hpsv2_are_refused(clip, preference, tmp_path):
    with pytest.raises(RedraftError, match=r"holds none of HPS_v2_compressed\.pt"):
        hpsv2(preference, version="2.0", clip=clip[0])
    with pytest.raises(RedraftError, match=r"unknown version of HPSv2 '3'"):
        hpsv2(preference, version="3", clip=clip[0])
    torch.save({"visual.proj": torch.zeros(16, 4)}, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(RedraftError, match="these are not the weights of HPSv2: 'logit_scale' is missing"):
        hpsv2(tmp_path, clip=clip[0])
    with pytest.raises(RedraftError, match="given itself needs processor_of"):
        CLIPScore(clip[1])


def test_a_picture_on_a_checkpoint_of_another_kind_is_refused(clip, dino, tmp_path):
    from transformers import BertConfig, BertModel

    with pytest.raises(RedraftError, match="is a Dinov2Model, which reads no texts"):
        CLIPScore(dino[0], device="cpu")
    with pytest.raises(RedraftError, match="for AutoModelForImageClassification: it lacks 'classifier"):
        ImageClassifier(clip[0], 0, device="cpu")
    BertModel(BertConfig(vocab_size=9, **TOWER)).save_pretrained(tmp_path)
    with pytest.raises(RedraftError, match="is a BertModel, which takes no pictures"):
        Features(str(tmp_path), device="cpu")
    with pytest.raises(RedraftError, match="cannot be loaded by transformers.AutoModel"):
        Features(str(tmp_path / "nothing"), device="cpu")
    with pytest.raises(RedraftError, match="unknown scale 'cosin'; did you mean 'cosine'"):
        CLIPScore(clip[0], scale="cosin")


def test_problems_without_prompts_are_told(clip):
    verifier = CLIPScore(clip[0], device="cpu")
    with pytest.raises(RedraftError, match=r"no facts\['prompt'\] to score by"):
        verifier(PICTURES, toy_problems([0] * 4))
    with pytest.raises(RedraftError, match="for classes use the verifier 'image-classifier'"):
        verifier(PICTURES, with_prompts([3, 1, 2, 0]))
    with pytest.raises(VerifierError, match="was given NaN"):
        verifier(PICTURES * torch.nan, with_prompts())


# ---- features


def test_features_are_what_each_network_calls_so(clip, siglip, dino):
    x = uniform(2, 3, SIDE, SIDE)
    for path, net in (clip, siglip, dino):
        features = Features(path, device="cpu")
        found, x_in = features(x), features.prepare(x)
        expected = (
            net.get_image_features(pixel_values=x_in).pooler_output
            if hasattr(net, "get_image_features")
            else net.dinov2(pixel_values=x_in).pooler_output
        )
        torch.testing.assert_close(found, expected)
        assert found.shape == (2, features.width)
        gray = uniform(2, 1, SIDE, SIDE)
        torch.testing.assert_close(features(gray), features(gray.expand(-1, 3, -1, -1)))


def test_a_network_in_half_precision_gives_numbers_in_single(clip):
    features = Features(clip[0], device="cpu", dtype="bfloat16")
    assert features.net.dtype == torch.bfloat16
    assert features(PICTURES).dtype == torch.float32
    torch.testing.assert_close(features(PICTURES), Features(clip[0], device="cpu")(PICTURES), atol=0.05, rtol=0.1)


# ---- heads


def layered(width, numbers, prefix="layers"):
    """Weights of linear layers by the names of a published head."""
    widths, weights = [width, 12, 8, 6, 4, 1], {}
    for i, number in enumerate(numbers):
        weights[f"{prefix}.{number}.weight"] = uniform(widths[i + 1], widths[i], seed=i) - 0.4
        weights[f"{prefix}.{number}.bias"] = uniform(widths[i + 1], seed=10 + i) - 0.4
    return weights


LAION, V25 = (0, 2, 4, 6, 7), (0, 2, 4, 6, 8)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "aesthetic-model.pth"
    torch.save(layered(4, LAION), path)
    return path


def published(weights, layout, prefix):
    """The head as published, with its dropout, evaluated."""
    places = {number: nn.Linear(*reversed(weights[f"{prefix}.{number}.weight"].shape)) for number in layout}
    net = nn.Sequential(*(places.get(i, nn.Dropout(0.5)) for i in range(max(layout) + 1)))
    net.load_state_dict({name.removeprefix(f"{prefix}."): value for name, value in weights.items()})
    return net.eval()


def test_the_laion_predictor_is_its_layers_on_features_of_length_one(clip, head):
    path, net = clip
    features = Features(path, device="cpu")(PICTURES)
    with torch.no_grad():
        wanted = published(layered(4, LAION), LAION, "layers")(features / features.norm(dim=1, keepdim=True))[:, 0]
        other = published(layered(4, LAION), LAION, "layers")(features)[:, 0]
    for source in (head, head.parent):
        found = aesthetic(source, checkpoint=path, device="cpu")(PICTURES, toy_problems([0] * 4))
        torch.testing.assert_close(found, wanted.double(), atol=1e-5, rtol=0)
    assert (wanted - other).abs().max() > 1e-3


def test_the_predictor_on_siglip_has_names_of_its_own(siglip, tmp_path):
    from safetensors.torch import save_file

    path, weights = siglip[0], layered(16, V25, "scoring_head")
    torch.save(weights, tmp_path / "aesthetic_predictor_v2_5.pth")
    save_file(weights, tmp_path / "model.safetensors")
    features = Features(path, device="cpu")(PICTURES)
    with torch.no_grad():
        wanted = published(weights, V25, "scoring_head")(features / features.norm(dim=1, keepdim=True))[:, 0]
    for source in (tmp_path / "aesthetic_predictor_v2_5.pth", tmp_path):
        verifier = aesthetic_siglip(source, checkpoint=path, device="cpu")
        torch.testing.assert_close(verifier(PICTURES, toy_problems([0] * 4)), wanted.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (layered(8, (0, 3, 6, 9, 11)), "has the linear layers layers.N"),  # with ReLU in between
        ({}, r"these weights have \[\]"),
        (layered(16, LAION), "takes 16 features and the network gives 8"),
        (layered(8, LAION) | {"layers.4.weight": torch.zeros(6, 9)}, "do not lead to one number"),
        (layered(8, LAION) | {"layers.4.bias": torch.zeros(7)}, "'layers.4' is no linear layer"),
        ({k: v for k, v in layered(8, LAION).items() if k != "layers.7.bias"}, "'layers.7' is no linear layer"),
    ],
)
def test_weights_of_another_head_are_refused(weights, words):
    with pytest.raises(RedraftError, match=words):
        chain(weights, "layers", 8)


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def test_code_in_a_file_of_weights_is_never_run(tmp_path):
    code = Code(tmp_path / "made")
    torch.save({"layers.0.weight": code}, tmp_path / "bad.pth")
    (tmp_path / "worse.pth").write_bytes(pickle.dumps(code))
    torch.save(torch.zeros(3), tmp_path / "bare.pth")
    torch.save({"layers.0.weight": "text"}, tmp_path / "text.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name, words in (("bad", "weights alone"), ("worse", "weights alone"), ("bare", "else"), ("text", "else")):
        with pytest.raises(RedraftError, match=words):
            read_weights(tmp_path / f"{name}.pth")
    with pytest.raises(RedraftError, match="weights alone"):
        read_weights(tmp_path / "broken.safetensors")
    assert not (tmp_path / "made").exists()


def test_weights_that_are_nowhere_are_told(tmp_path, monkeypatch):
    import huggingface_hub

    with pytest.raises(RedraftError, match="holds none of a.safetensors, b.pth"):
        weight_file(tmp_path, ("a.safetensors", "b.pth"))
    with pytest.raises(RedraftError, match="is neither a file or folder here nor to be had from the hub"):
        weight_file(tmp_path / "no" / "such" / "file", ("a.pth",))
    asked = []

    def download(source, name, revision):
        asked.append((source, name, revision))
        raise huggingface_hub.errors.EntryNotFoundError("none") if name == "a" else OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(RedraftError, match="to be had from the hub"):
        weight_file("some/one", ("a", "b"), "main")
    assert asked == [("some/one", "a", "main"), ("some/one", "b", "main")]


# ---- classes


def test_a_classifier_scores_its_label_or_the_class_that_is_asked_for(dino):
    path, net = dino
    x = Features(path, device="cpu").prepare(PICTURES)
    logits = net(pixel_values=x).logits.double()
    problems = toy_problems([0] * 4)
    for label in ("cat", 1):
        found = ImageClassifier(path, label, device="cpu")(PICTURES, problems)
        torch.testing.assert_close(found, logits.log_softmax(1)[:, 1], atol=1e-5, rtol=0)
    problems.cond["class_labels"] = wanted = torch.tensor([2, 0, 1, 2])
    found = ImageClassifier(path, output="logit", device="cpu")(PICTURES, problems)
    torch.testing.assert_close(found, logits[torch.arange(4), wanted], atol=1e-5, rtol=0)
    check_verifier(ImageClassifier(path, device="cpu"), PICTURES, problems)
    problems.cond["class_labels"] = torch.tensor([2, 0, 3, 2])
    with pytest.raises(RedraftError, match="asks for class 3: the classifier knows 0 to 2"):
        ImageClassifier(path, device="cpu")(PICTURES, problems)
    with pytest.raises(RedraftError, match="name no class"):
        ImageClassifier(path, device="cpu")(PICTURES, toy_problems([0] * 4))
    with pytest.raises(RedraftError, match="unknown label 'cats'; did you mean 'cat'"):
        ImageClassifier(path, "cats", device="cpu")
    with pytest.raises(RedraftError, match="unknown output"):
        ImageClassifier(path, output="odds", device="cpu")


def test_a_picture_is_blind_to_its_problem_where_the_label_is_given(dino, clip, head):
    assert ImageClassifier(dino[0], "cat", device="cpu").blind
    assert not ImageClassifier(dino[0], device="cpu").blind
    assert Aesthetic(head, clip[0], device="cpu").blind
    assert not getattr(CLIPScore(clip[0], device="cpu"), "blind", False)


# ---- a vision-language model


def answers(llava, prompts, x):
    """Log-probabilities of the next word (N, words), each of a conversation of its own."""
    path, net, reader = llava
    found = []
    for prompt, image in zip(prompts, pictures.as_images(x), strict=True):
        text = f'USER : <image> Does this figure show "{prompt}"? Please answer yes or no. ASSISTANT :'
        batch = reader(images=[image], text=[text], return_tensors="pt")
        found.append(net(**batch).logits[0, -1].double().log_softmax(-1))
    return torch.stack(found)


def test_a_score_is_the_probability_that_the_next_word_is_yes(llava):
    logp = answers(llava, PROMPTS, PICTURES)
    yes, no = logp[:, [11, 12]].logsumexp(1), logp[:, [13, 14]].logsumexp(1)
    wanted = {"probability": yes.exp(), "share": yes.exp() / (yes.exp() + no.exp()), "log-odds": yes - no}
    assert set(wanted) == set(SCORES)
    for score, expected in wanted.items():
        verifier = VQA(llava[0], device="cpu", score=score)
        torch.testing.assert_close(verifier(PICTURES, with_prompts()), expected, atol=1e-5, rtol=1e-4)
    assert (yes - no).diff().abs().min() > 1e-4


def test_a_vision_language_model_must_be_able_to_be_asked(llava, clip, tmp_path):
    with pytest.raises(RedraftError, match="unknown score 'odds'; did you mean 'log-odds'"):
        VQA(llava[0], score="odds")
    with pytest.raises(RedraftError, match="no {} for the prompt"):
        VQA(llava[0], question="Is it good?")
    with pytest.raises(RedraftError, match="cannot be loaded by transformers.AutoModelForImageTextToText"):
        VQA(clip[0], device="cpu")
    with pytest.raises(RedraftError, match="no single token for 'maybe'"):
        pictures._spellings(llava[2].tokenizer, "maybe")
    llava[1].save_pretrained(tmp_path)
    tokenizer(tmp_path, 64, framed=False)
    clip_processor(tmp_path)
    with pytest.raises(RedraftError, match=r"cannot be loaded by transformers.AutoProcessor|has no chat template"):
        VQA(str(tmp_path), device="cpu")


# ---- agreement


def first_pixels(x):
    return x.flatten(1)[:, :6]


def test_agreement_is_the_cosine_to_the_picture_that_the_problem_comes_with():
    problems = toy_problems([0] * 4)
    problems.facts["reference"] = other = uniform(4, 3, 20, 28, seed=1)
    expected = torch.cosine_similarity(first_pixels(PICTURES), first_pixels(other)).double()
    verifier = Agreement(first_pixels)
    torch.testing.assert_close(verifier(PICTURES, problems), expected, atol=1e-6, rtol=0)
    assert Agreement(first_pixels)(other, problems).tolist() == pytest.approx([1] * 4)
    check_verifier(verifier, PICTURES, problems)
    with pytest.raises(RedraftError, match=r"no pictures facts\['sketch'\]"):
        Agreement(first_pixels, "sketch")(PICTURES, problems)


class Painter(Toy):
    """Its values are pictures of 6 x 2 pixels; it counts, which its mark leaves out."""

    nfe_per_row, mark = 2, "painter"

    def decode(self, x):
        return x[:, None].expand(-1, 3, -1, -1)

    def encode(self, samples):
        return samples[:, 0]


def test_self_agreement_compares_a_sample_to_what_the_model_makes_of_it_when_noised():
    model, problems = Painter(), toy_problems([0, 2, 1])
    x = uniform(3, 6, 2)
    x = torch.where(problems.frozen[..., None], problems.x, x)
    samples = model.decode(x)
    verifier = SelfAgreement(model, lambda p: p[:, 0].flatten(1), level=0.3, seed=5)
    noise = Streams.root(5, problems.ids).fold("agreement").normal((6, 2), ~problems.frozen)
    t = torch.where(problems.frozen, 0.0, 0.3)
    z = x.clone()
    z[~problems.frozen] = 0.7 * x[~problems.frozen] + 0.3 * noise
    state = problems.state().to(z, t)
    clean = torch.where(problems.frozen[..., None], x, model.predict(state).clean)
    expected = torch.cosine_similarity(x.clamp(0, 1).flatten(1), clean.clamp(0, 1).flatten(1)).double()
    torch.testing.assert_close(verifier(samples, problems), expected, atol=1e-6, rtol=0)
    assert (verifier(samples, problems) - SelfAgreement(model, verifier.features)(samples, problems)).abs().max() > 1e-3
    check_verifier(verifier, samples, problems)
    assert RectifiedFlow  # the process of the toy


def test_self_agreement_is_paid_for_in_verifier_calls():
    model = Painter()
    verifier = SelfAgreement(model, lambda p: p[:, 0].flatten(1))
    assert verifier.calls_per_row == 3
    method = redraft.BestOfN(n=2, sampler=Parallel(3))
    result = redraft.run(method, model, toy_problems([0, 0]), verifier=verifier, progress=False)
    assert result.ledger.verifier_calls.tolist() == [6, 6]
    encoded = []
    other = SelfAgreement(model, verifier.features, encode=lambda s: encoded.append(1) or s[:, 0])
    other(model.decode(uniform(2, 6, 2)), toy_problems([0, 0]))
    assert encoded == [1]
    with pytest.raises(RedraftError, match=r"level is 1.5: it must be a number in \[0, 1\]"):
        SelfAgreement(model, verifier.features, level=1.5)


# ---- ImageReward

DEEP, WIDE = 2, 128


def blip_shapes(deep=DEEP, wide=WIDE, reading=64):
    """Names and shapes of BLIP with ImageReward's head, as its authors' code has them."""
    shapes = {"cls_token": (1, 1, wide), "pos_embed": (1, 5, wide), "patch_embed.proj.weight": (wide, 3, 8, 8)}
    shapes["patch_embed.proj.bias"] = (wide,)

    def linear(name, out, into):
        shapes.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name, width):
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    for i in range(deep):
        norm(f"blocks.{i}.norm1", wide)
        linear(f"blocks.{i}.attn.qkv", 3 * wide, wide)
        linear(f"blocks.{i}.attn.proj", wide, wide)
        norm(f"blocks.{i}.norm2", wide)
        linear(f"blocks.{i}.mlp.fc1", 96, wide)
        linear(f"blocks.{i}.mlp.fc2", wide, 96)
    norm("norm", wide)
    vision, shapes = {f"blip.visual_encoder.{name}": shape for name, shape in shapes.items()}, {}
    shapes |= {"embeddings.word_embeddings.weight": (len(WORDS), reading)}
    shapes |= {"embeddings.position_embeddings.weight": (40, reading), "embeddings.position_ids": (1, 40)}
    norm("embeddings.LayerNorm", reading)
    for i in range(deep):
        for kind, into in (("attention", reading), ("crossattention", wide)):
            linear(f"encoder.layer.{i}.{kind}.self.query", reading, reading)
            linear(f"encoder.layer.{i}.{kind}.self.key", reading, into)
            linear(f"encoder.layer.{i}.{kind}.self.value", reading, into)
            linear(f"encoder.layer.{i}.{kind}.output.dense", reading, reading)
            norm(f"encoder.layer.{i}.{kind}.output.LayerNorm", reading)
        linear(f"encoder.layer.{i}.intermediate.dense", 80, reading)
        linear(f"encoder.layer.{i}.output.dense", reading, 80)
        norm(f"encoder.layer.{i}.output.LayerNorm", reading)
    text = {f"blip.text_encoder.{name}": shape for name, shape in shapes.items()}
    return vision | text | {"blip.vision_proj.weight": (4, wide), "blip.text_proj.weight": (4, reading)}


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in blip_shapes().items()}
    weights |= layered(64, LAION, "mlp.layers")
    folder = tmp_path_factory.mktemp("reward")
    torch.save(weights, folder / "ImageReward.pt")
    tokenizer(folder, 35)
    return folder, weights


def attention(query, key, value, heads, mask=None):
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    scores = split[0] @ split[1].transpose(2, 3) / split[0].shape[-1] ** 0.5
    scores = scores if mask is None else scores.masked_fill(~mask[:, None, None], -1e9)
    return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)


def reward_by_hand(weights, x, ids, mask):
    """BLIP's forward pass over its own names, and the head, in plain functions."""
    w = {name.removeprefix("blip."): value for name, value in weights.items()}

    def linear(name, x):
        return nn.functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name, x, eps):
        return nn.functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    eye = "visual_encoder"
    patches = nn.functional.conv2d(x, w[f"{eye}.patch_embed.proj.weight"], w[f"{eye}.patch_embed.proj.bias"], stride=8)
    seen = torch.cat([w[f"{eye}.cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    seen = seen + w[f"{eye}.pos_embed"]
    for i in range(DEEP):
        at = f"{eye}.blocks.{i}"
        qkv = linear(f"{at}.attn.qkv", norm(f"{at}.norm1", seen, 1e-6)).chunk(3, -1)
        seen = seen + linear(f"{at}.attn.proj", attention(*qkv, WIDE // 64))
        inside = nn.functional.gelu(linear(f"{at}.mlp.fc1", norm(f"{at}.norm2", seen, 1e-6)))
        seen = seen + linear(f"{at}.mlp.fc2", inside)
    seen = norm(f"{eye}.norm", seen, 1e-6)
    words = w["text_encoder.embeddings.word_embeddings.weight"][ids]
    y = words + w["text_encoder.embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = norm("text_encoder.embeddings.LayerNorm", y, 1e-12)
    for i in range(DEEP):
        at = f"text_encoder.encoder.layer.{i}"
        for kind, other, hide in (("attention", None, mask), ("crossattention", seen, None)):
            source = y if other is None else other
            query, key, value = (
                linear(f"{at}.{kind}.self.{name}", y if name == "query" else source)
                for name in ("query", "key", "value")
            )
            mixed = linear(f"{at}.{kind}.output.dense", attention(query, key, value, 1, hide))
            y = norm(f"{at}.{kind}.output.LayerNorm", mixed + y, 1e-12)
        inside = linear(f"{at}.output.dense", nn.functional.gelu(linear(f"{at}.intermediate.dense", y)))
        y = norm(f"{at}.output.LayerNorm", inside + y, 1e-12)
    score = published(layered(64, LAION, "mlp.layers"), LAION, "mlp.layers")(y[:, 0])[:, 0]
    return (score - 0.16717362830052426) / 1.0333394966054072


@torch.no_grad()
def test_image_reward_is_its_authors_network_under_other_names(reward):
    folder, weights = reward
    verifier = ImageReward(folder, str(folder), device="cpu")
    x = Preprocess(short=SIDE, crop=(SIDE, SIDE), mean=image_reward.COLOURS[0], std=image_reward.COLOURS[1])(PICTURES)
    rows = [[2, *[WORDS.index(word) for word in prompt.split()], 3] for prompt in PROMPTS]
    ids = torch.tensor([row + [1] * (35 - len(row)) for row in rows])
    expected = reward_by_hand(weights, x, ids, ids != 1).double()
    problems = with_prompts()
    torch.testing.assert_close(verifier(PICTURES, problems), expected, atol=1e-5, rtol=1e-5)
    assert (expected[:, None] - expected).abs()[0, 1:].min() > 1e-4
    check_verifier(verifier, PICTURES, problems)
    long = with_prompts([f"a cat {'a ' * 33}{end}" for end in PROMPTS])
    with pytest.warns(
        UserWarning, match="ImageReward reads 35 tokens and was given a text of 4[0-9]: .* the beginning"
    ):
        verifier(PICTURES, long)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("blip.visual_encoder.norm.bias"), "'post_layernorm.bias' is missing"),
        (lambda w: w.update({"blip.visual_encoder.blocks.0.extra": torch.zeros(1)}), "no layer 'blocks.0.extra'"),
        (lambda w: w.update({"blip.text_encoder.pooler.dense.bias": torch.zeros(1)}), "pooler.dense.bias' is too much"),
        (lambda w: w.update({"blip.visual_encoder.norm.bias": torch.zeros(5)}), r"has shape \(5,\), not \(128,\)"),
        (
            lambda w: w.pop("blip.visual_encoder.patch_embed.proj.weight"),
            "lack 'embeddings.patch_embedding.weight'",
        ),
        (lambda w: w.clear(), "these are not the weights of ImageReward"),
    ],
)
def test_other_weights_than_those_of_image_reward_are_refused(reward, change, words):
    weights = dict(reward[1])
    change(weights)
    with pytest.raises(RedraftError, match=words):
        image_reward.blip(weights)


# ---- devices


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize(("net", "at"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_samples_may_be_on_another_device_than_the_network(clip, dino, llava, head, reward, net, at):
    problems = with_prompts()
    problems.facts["reference"] = uniform(4, 3, 20, 28, seed=1)
    for make in (
        lambda device: CLIPScore(clip[0], scale="logit", device=device),
        lambda device: Aesthetic(head, clip[0], device=device),
        lambda device: ImageClassifier(dino[0], "cat", device=device),
        lambda device: VQA(llava[0], device=device),
        lambda device: ImageReward(reward[0], str(reward[0]), device=device),
        lambda device: Agreement(Features(clip[0], device=device)),
    ):
        scores = make(net)(PICTURES.to(at), problems)
        assert scores.device.type == at
        torch.testing.assert_close(scores.cpu(), make("cpu")(PICTURES, problems), atol=1e-3, rtol=1e-2)


# ---- by name


def test_names_load_with_their_published_checkpoints(monkeypatch):
    asked = []

    def refuse(kind, source, *rest):
        asked.append(source)
        raise RedraftError("not here")

    monkeypatch.setattr(encoders, "network", refuse)
    monkeypatch.setattr(pictures, "network", refuse)
    monkeypatch.setattr(pictures, "weight_file", lambda source, names: asked.append(str(source)))
    monkeypatch.setattr(pictures, "read_weights", lambda path: {})
    for module in (image_reward, open_clip):
        monkeypatch.setattr(module, "weight_file", lambda source, *rest: refuse(None, source))
    for name in ("clip", "pickscore", "hpsv2", "aesthetic", "vqa", "image-classifier", "image-reward"):
        with pytest.raises(RedraftError, match="not here"):
            redraft.load_verifier(name)
    with pytest.raises(RedraftError, match="'aesthetic-siglip' needs head"):
        redraft.load_verifier("aesthetic-siglip")
    with pytest.raises(RedraftError, match="not here"):
        redraft.load_verifier("aesthetic-siglip", head="file.pth")
    assert asked == [
        "openai/clip-vit-large-patch14", "yuvalkirstain/PickScore_v1", "xswu/HPSv2", "trl-lib/ddpo-aesthetic-predictor",
        "openai/clip-vit-large-patch14", "llava-hf/llava-1.5-7b-hf", "facebook/dinov2-base-imagenet1k-1-layer",
        "THUDM/ImageReward", "file.pth", "google/siglip-so400m-patch14-384",
    ]  # fmt: skip


def test_a_name_takes_options(clip):
    verifier = redraft.load_verifier("clip", checkpoint=clip[0], scale="cosine", rows=3, device="cpu")
    assert (verifier.scale, verifier.rows) == ("cosine", 3)


def test_without_transformers_one_sentence_names_the_extra(monkeypatch):
    from redraft.core import errors

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    for make in (Features, lambda x: ImageClassifier(x), lambda x: VQA(x)):
        with pytest.raises(RedraftError, match=r"transformers is not installed: pip install 'redraft\[diffusers\]'"):
            make("some/checkpoint")


def test_a_pipeline_s_pictures_are_searched_by_clip(clip):
    import pipelines

    model = redraft.load_model(
        pipelines.made(pipelines.stable_diffusion),
        example=pipelines.embeddings(0, *pipelines.PLAIN),
        height=16,
        width=16,
    )
    problems = redraft.prompts(model, [pipelines.embeddings(i, *pipelines.PLAIN) for i in (1, 2)])
    problems.facts["prompt"] = PROMPTS[:2]
    verifier = CLIPScore(clip[0], scale="cosine", device="cpu")
    method = redraft.BestOfN(n=2, sampler=redraft.Scheduled(2))
    result = redraft.run(method, model, problems, verifier=verifier, progress=False)
    assert result.samples.shape[1] == 3
    scores = verifier(result.samples, problems)
    torch.testing.assert_close(scores, result.trace.by_draft("reward")[1].double(), atol=1e-5, rtol=0)
    assert result.ledger.verifier_calls.tolist() == [2, 2]
    agreement = SelfAgreement(model, Features(clip[0], device="cpu"))
    with pytest.raises(RedraftError, match="cannot turn pictures back into latents"):
        agreement(result.samples, problems)
    codec = model.pipeline.vae

    def encode(samples):
        latents = codec.encode(2 * samples - 1).latent_dist.mean * codec.config.scaling_factor
        return latents[:, None]

    again = SelfAgreement(model, agreement.features, encode=encode)(result.samples, problems)
    assert again.shape == (2,)
    assert (again <= 1).all()
