"""Verifiers of pictures on `transformers`: how well they fit a prompt, how they look, what they show.

    CLIPScore()                                 a picture and its prompt, by any network like CLIP
    pickscore(), hpsv2(), aesthetic(), ImageReward()     what people prefer, as published
    VQA()                                       whether a vision-language model says that the prompt is shown
    ImageClassifier()                           the log-probability of the class that is asked for
    Agreement(Features("facebook/dinov2-base")), SelfAgreement(model, ...)     without labels

Prompts are `problems.facts["prompt"]`, which `redraft.prompts` writes; for samples see `redraft.verifiers.encoders`. Of
a video the frame in the middle is scored, or with `frames=` more of them, and the scores are averaged. Samples may be
on another device than the network. These are the verifiers of Ma et al., "Inference-time scaling for diffusion models
beyond scaling denoising steps", 2025, https://arxiv.org/abs/2501.09732, and some more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.core.errors import RedraftError
from redraft.core.fields import Among, Count, Seed, Share, checked, checks
from redraft.core.model import Model
from redraft.core.state import merge
from redraft.core.streams import Streams
from redraft.core.task import Problems
from redraft.verifiers.encoders import (
    Dtype,
    Features,
    Preprocess,
    classes_of,
    network,
    per_frame,
    pixels,
    processor,
    prompts_of,
    unit,
)
from redraft.verifiers.heads import chain, read_weights, weight_file
from redraft.verifiers.image_reward import ImageReward
from redraft.verifiers.text import label_number

__all__ = [
    "VQA",
    "Aesthetic",
    "Agreement",
    "CLIPScore",
    "ImageClassifier",
    "ImageReward",
    "SelfAgreement",
    "aesthetic",
    "aesthetic_siglip",
    "pickscore",
]
CLIP = "openai/clip-vit-large-patch14"
SCALES = ("clipscore", "cosine", "logit")
SCORES = ("probability", "share", "log-odds")
OUTPUTS = ("log-probability", "logit")
Look = Callable[[Tensor], Tensor]
"""Vectors (N, D) of pictures (N, 3, H, W)."""


# ---- pictures and prompts


class CLIPScore:
    """How near a picture is to its prompt, by a network that puts both into one space (CLIP, SigLIP, ...).

    Hessel et al., "CLIPScore", 2021, https://arxiv.org/abs/2104.08718: 2.5 max(cos, 0), there with ViT-B/32 and
    prompts that begin with "A photo depicts".

    Attributes:
        scale: "clipscore" as above; "cosine"; "logit", the cosine times the network's own scale, plus its bias if it
            has one.
        prefix: put before every prompt.
        frames: most frames of a video.
        rows: samples at a time.
    """

    @checks
    def __init__(
        self,
        checkpoint: str | nn.Module = CLIP,
        *,
        scale: Annotated[str, Among(SCALES)] = "clipscore",
        prefix: str = "",
        processor_of: str | None = None,
        frames: Count = 1,
        device: str | None = None,
        dtype: Dtype = None,
        rows: Count = 32,
        revision: str | None = None,
    ) -> None:
        """Load the network; arguments as for `Features`, and the attributes.

        Raises:
            RedraftError: it cannot be loaded or does not read texts, or there is no such scale.
        """
        self.scale, self.prefix, self.frames, self.rows = scale, prefix, frames, rows
        self.features = Features(
            checkpoint, processor_of=processor_of, texts=True, device=device, dtype=dtype, revision=revision
        )

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64."""
        texts = unit(self.features.read([self.prefix + text for text in prompts_of(problems)]))
        return per_frame(samples, problems, self.frames, lambda x, row: self._scaled(self._cosine(x, texts, row)))

    def _cosine(self, pictures: Tensor, texts: Tensor, row: Tensor) -> Tensor:
        return (unit(self.features(pictures)) * texts[row.to(texts.device)]).sum(1)

    def _scaled(self, cosine: Tensor) -> Tensor:
        if self.scale == "clipscore":
            return 2.5 * cosine.clamp_min(0)
        if self.scale == "cosine":
            return cosine
        net = self.features.net
        bias = getattr(net, "logit_bias", None)
        scale: Tensor = net.logit_scale.float().exp()
        return scale * cosine + (0 if bias is None else bias.float())


def pickscore(**options: Any) -> CLIPScore:
    """PickScore v1 (Kirstain et al. 2023, https://arxiv.org/abs/2305.01569); options as for `CLIPScore`.

    It is the cosine times the network's scale, about 20 for pictures that fit; differences are what counts.
    """
    published = {"processor_of": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "scale": "logit"}
    return CLIPScore(**{"checkpoint": "yuvalkirstain/PickScore_v1"} | published | options)


class VQA:
    """The probability that a vision-language model answers "yes" when it is asked whether a picture shows the prompt.

    Lin et al., "Evaluating text-to-visual generation with image-to-text generation" (VQAScore), 2024,
    https://arxiv.org/abs/2404.01291. The next word's probability is looked at, nothing is generated.

    Attributes:
        score: "probability", of all spellings of "yes" among all words, as there; "share", of "yes" in what goes to
            "yes" and "no"; "log-odds" of the two, which tells samples apart where probabilities are near 0 or 1.
        question: with {} for the prompt.
        frames: most frames of a video.
        rows: samples at a time.
    """

    @checks
    def __init__(
        self,
        checkpoint: str = "llava-hf/llava-1.5-7b-hf",
        *,
        score: Annotated[str, Among(SCORES)] = "probability",
        question: str = 'Does this figure show "{}"? Please answer yes or no.',
        frames: Count = 1,
        device: str | None = None,
        dtype: Dtype = None,
        rows: Count = 4,
        revision: str | None = None,
    ) -> None:
        """Load an image-text-to-text network with a chat template; arguments as for `Features`, and the attributes.

        Raises:
            RedraftError: it cannot be loaded, has no chat template or no word for yes or no, or a setting is wrong.
        """
        if "{}" not in question:
            raise RedraftError("the question has no {} for the prompt to stand in")
        self.score, self.question, self.frames, self.rows = score, question, frames, rows
        self._net = network("AutoModelForImageTextToText", checkpoint, device, dtype, revision)
        self._reader = processor("AutoProcessor", checkpoint, revision)
        if not getattr(self._reader, "chat_template", None):
            raise RedraftError(f"{checkpoint!r} has no chat template, by which a question is put to it")
        self._reader.tokenizer.padding_side = "left"  # so that the answer follows the last token of every row
        self._answers = [_spellings(self._reader.tokenizer, word) for word in ("yes", "no")]

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64."""
        texts = prompts_of(problems)
        return per_frame(samples, problems, self.frames, lambda x, row: self._scores(x, [texts[i] for i in row]))

    def _scores(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        talk = [self._asked(*pair) for pair in zip(as_images(pictures), texts, strict=True)]
        batch = self._reader.apply_chat_template(
            talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        ).to(self._net.device, self._net.dtype)
        last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self._net.forward).parameters else {}
        logp: Tensor = self._net(**batch, **last).logits[:, -1].double().log_softmax(-1)
        yes, no = (logp[:, ids].logsumexp(-1) for ids in self._answers)
        if self.score == "log-odds":
            return yes - no
        return yes.exp() if self.score == "probability" else (yes - no).sigmoid()

    def _asked(self, image: Any, text: str) -> list[dict[str, Any]]:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": self.question.replace("{}", text)}]
        return [{"role": "user", "content": parts}]


def _spellings(words: Any, word: str) -> list[int]:
    """The tokens that spell `word`, with a capital or without, after a space or without."""
    spelled = (before + form for before in ("", " ") for form in (word, word.capitalize()))
    encoded = [words(form, add_special_tokens=False)["input_ids"] for form in spelled]
    single = {ids[0] for ids in encoded if len(ids) == 1} - {words.unk_token_id}
    if not single:
        raise RedraftError(f"the tokenizer has no single token for {word!r}")
    return sorted(single)


def as_images(pictures: Tensor) -> list[Any]:
    """Pictures (N, 3, H, W) in [0, 1] as images of Pillow, 8 bits a channel."""
    from PIL import Image

    each = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in each]


# ---- pictures alone


class Aesthetic:
    """How a picture looks to people: a head of linear layers on features of length 1.

    Attributes:
        frames: most frames of a video.
        rows: samples at a time.
    """

    blind = True
    PREFIXES = ("layers", "scoring_head")

    @checks
    def __init__(
        self,
        head: str | Path,
        checkpoint: str = CLIP,
        *,
        frames: Count = 1,
        device: str | None = None,
        dtype: Dtype = None,
        rows: Count = 32,
        revision: str | None = None,
    ) -> None:
        """Load the network and the head; arguments as for `Features`, and the attributes.

        `head` is a file of weights, or a folder or hub id with one (see `redraft.verifiers.heads.chain`), `checkpoint`
        the network that it was trained on.

        Raises:
            RedraftError: one cannot be loaded, or they do not belong together.
        """
        names = ("aesthetic-model.safetensors", "model.safetensors", "aesthetic-model.pth")
        weights = read_weights(weight_file(head, names))
        prefix = next((each for each in self.PREFIXES if any(name.startswith(each) for name in weights)), "layers")
        self.features = Features(checkpoint, device=device, dtype=dtype, revision=revision)
        self.head = chain(weights, prefix, self.features.width).to(self.features.net.device)
        self.frames, self.rows = frames, rows

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64, from about 1 to 10."""
        return per_frame(samples, problems, self.frames, lambda x, _: self.head(unit(self.features(x)))[:, 0])


def aesthetic(head: str | Path = "trl-lib/ddpo-aesthetic-predictor", **options: Any) -> Aesthetic:
    """The LAION aesthetic predictor v2 (Schuhmann 2022) on CLIP ViT-L/14; options as for `Aesthetic`."""
    return Aesthetic(head, **options)


def aesthetic_siglip(head: str | Path, **options: Any) -> Aesthetic:
    """The aesthetic predictor 2.5 (discus0434 2024) on SigLIP so400m; options as for `Aesthetic`.

    Args:
        head: its file `aesthetic_predictor_v2_5.pth`, from https://github.com/discus0434/aesthetic-predictor-v2-5,
            which is licensed under the AGPL and so not fetched by itself.
        options: as for `Aesthetic`.
    """
    return Aesthetic(head, **{"checkpoint": "google/siglip-so400m-patch14-384"} | options)


class ImageClassifier:
    """The log-probability, or the logit, of a class under an image classifier.

    Attributes:
        label: number of the class, or None for the class that each problem asks for.
        output: "log-probability" or "logit".
        frames: most frames of a video.
        rows: samples at a time.
    """

    @checks
    def __init__(
        self,
        checkpoint: str = "facebook/dinov2-base-imagenet1k-1-layer",
        label: str | int | None = None,
        *,
        output: Annotated[str, Among(OUTPUTS)] = "log-probability",
        frames: Count = 1,
        device: str | None = None,
        dtype: Dtype = None,
        rows: Count = 32,
        revision: str | None = None,
    ) -> None:
        """Load a `...ForImageClassification`; arguments as for `Features`, and the attributes.

        `label` is a name or number. When it is not given, the problems say which class they ask for: by `class_labels`
        or `label` in `cond` or `facts`, or by prompts that are numbers.

        Raises:
            RedraftError: it cannot be loaded, has no such label, or there is no such output.
        """
        self.output, self.frames, self.rows = output, frames, rows
        self._net = network("AutoModelForImageClassification", checkpoint, device, dtype, revision)
        self._prepare = Preprocess.of(processor("AutoImageProcessor", checkpoint, revision))
        self.label = None if label is None else label_number(self._net.config, label)
        self.blind = label is not None

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64.

        Raises:
            RedraftError: a problem asks for a class that the classifier does not know.
        """
        wanted = classes_of(problems) if self.label is None else torch.full((len(samples),), self.label)
        classes = self._net.config.num_labels
        if ((wanted < 0) | (wanted >= classes)).any():
            raise RedraftError(f"a problem asks for class {int(wanted.max())}: the classifier knows 0 to {classes - 1}")
        return per_frame(samples, problems, self.frames, lambda x, row: self._scores(x, wanted[row]))

    def _scores(self, pictures: Tensor, wanted: Tensor) -> Tensor:
        x = self._prepare(pictures.to(self._net.device)).to(self._net.dtype)
        logits: Tensor = self._net(pixel_values=x).logits.double()
        if self.output == "log-probability":
            several = self._net.config.problem_type == "multi_label_classification"
            logits = F.logsigmoid(logits) if several else logits.log_softmax(1)
        return logits.gather(1, wanted.to(logits.device)[:, None])[:, 0]


# ---- agreement, without labels


@dataclass(frozen=True)
class Agreement:
    """The cosine between features of a sample and of a picture that its problem comes with.

    Attributes:
        features: vectors (N, D) of pictures (N, 3, H, W), such as `Features("facebook/dinov2-base")`.
        reference: where the problems' pictures (P, 3, H, W) are in `problems.facts`.
        frames: most frames of a video.
        rows: samples at a time.
    """

    features: Look
    reference: str = "reference"
    frames: Count = 1
    rows: Count = 32

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64.

        Raises:
            RedraftError: the problems have no such pictures.
        """
        if not isinstance(problems.facts.get(self.reference), Tensor):
            raise RedraftError(f"these problems have no pictures facts[{self.reference!r}] to compare samples to")
        other = self._unit(pixels(problems.facts[self.reference].to(samples.device), problems)[:, 0])
        return per_frame(
            samples, problems, self.frames, lambda x, row: (self._unit(x) * other[row.to(other.device)]).sum(1)
        )

    def _unit(self, pictures: Tensor) -> Tensor:
        return unit(self.features(pictures).float())


@dataclass(frozen=True)
class SelfAgreement:
    """The cosine between features of a sample and of what the model makes of it when it is noised a little.

    The sample is noised to `level` by the model's process, once, and the clean data that one evaluation predicts is
    decoded. Ma et al. (2025) score the prediction on the way down against the sample, with features of CLIP, DINO or
    SigLIP, and find that this goes along with a classifier's logits without any label; noising the sample anew needs no
    path, so that it can be a verifier. The noise follows from `seed` and the problem: it is one for all its samples.

    A score takes `nfe_per_row` rows of the denoiser. The ledger counts them among the verifier's calls, by
    `calls_per_row`, and not as NFE: give the run a budget of verifier calls, or count them yourself.

    Attributes:
        model: whose samples they are.
        features: vectors (N, D) of pictures (N, 3, H, W).
        level: of noise.
        seed: of the noise.
        encode: clean values (B, R, *region) of samples; the model's own if not given, which pipelines do not have.
        frames: most frames of a video.
        rows: samples at a time.
    """

    model: Model
    features: Look
    level: Share = 0.4
    seed: Seed = 0
    encode: Callable[[Tensor], Tensor] | None = None
    frames: Count = 1
    rows: Count = 32

    def __post_init__(self) -> None:
        """Reject settings without a meaning."""
        checked(self)

    @property
    def calls_per_row(self) -> int:
        """What the ledger charges for a sample: the features, and the network rows of the prediction."""
        return 1 + int(getattr(self.model, "nfe_per_row", 1))

    def __call__(self, samples: Tensor, problems: Problems) -> Tensor:
        """Scores (B,), float64."""
        with torch.no_grad():
            again = self.predicted(samples, problems)
        compared = Agreement(self.features, frames=self.frames)
        one = pixels(samples, problems, self.frames)
        other = pixels(again.to(samples.device), problems, self.frames)
        cosine = (compared._unit(one.flatten(0, 1)) * compared._unit(other.flatten(0, 1))).sum(1)
        return cosine.double().reshape(one.shape[:2]).mean(1).to(samples.device)

    def predicted(self, samples: Tensor, problems: Problems) -> Tensor:
        """What the model makes of the samples: of the same form."""
        net = getattr(self.model, "net", None)
        given = problems.state(samples.device if net is None else next(net.parameters()).device)
        x = (self.encode or self.model.encode)(samples.to(given.x.device)).to(given.x)
        state = given.to(merge(given.free, x, given.x), torch.zeros_like(given.t))
        streams = Streams.root(self.seed, problems.ids.to(given.x.device)).fold("agreement")
        noisy = self.model.process.renoise(state, state.free, torch.full_like(state.t, self.level), streams)
        clean = self.model.predict(noisy).clean
        return self.model.decode(merge(state.free, clean, state.x))
