"""Verifiers score samples: `(samples (B, ...), problems) -> (B,)`, higher is better; any callable that fits is one."""

from typing import TYPE_CHECKING

from redraft.core.lazy import attributes

if TYPE_CHECKING:
    from redraft.core.batched import Batched
    from redraft.core.verifier import Verifier, VerifierError
    from redraft.verifiers.combined import MeanRank, WeightedSum, held_out
    from redraft.verifiers.constraints import Metric, likelihood, parses, violations
    from redraft.verifiers.encoders import Features
    from redraft.verifiers.grader import Grader
    from redraft.verifiers.image_reward import ImageReward
    from redraft.verifiers.kinds import LineKind
    from redraft.verifiers.open_clip import hpsv2
    from redraft.verifiers.pictures import (
        VQA,
        Aesthetic,
        Agreement,
        CLIPScore,
        ImageClassifier,
        SelfAgreement,
        aesthetic,
        aesthetic_siglip,
        pickscore,
    )
    from redraft.verifiers.text import Classifier, Perplexity, cola, formality, sentiment, toxicity, toxicity_held_out

_HOME = {
    "core.verifier": ("Verifier", "VerifierError"),
    "core.batched": ("Batched",),
    "verifiers.combined": ("MeanRank", "WeightedSum", "held_out"),
    "verifiers.kinds": ("LineKind",),
    "verifiers.constraints": ("Metric", "likelihood", "parses", "violations"),
    "verifiers.encoders": ("Features",),
    "verifiers.grader": ("Grader",),
    "verifiers.open_clip": ("hpsv2",),
    "verifiers.image_reward": ("ImageReward",),
    "verifiers.pictures": (
        "VQA",
        "Aesthetic",
        "Agreement",
        "CLIPScore",
        "ImageClassifier",
        "SelfAgreement",
        "aesthetic",
        "aesthetic_siglip",
        "pickscore",
    ),
    "verifiers.text": ("Classifier", "Perplexity", "cola", "formality", "sentiment", "toxicity", "toxicity_held_out"),
}


__getattr__ = attributes(__name__, _HOME)  # a constraint needs no language model

__all__ = [
    "VQA",
    "Aesthetic",
    "Agreement",
    "Batched",
    "CLIPScore",
    "Classifier",
    "Features",
    "Grader",
    "ImageClassifier",
    "ImageReward",
    "LineKind",
    "MeanRank",
    "Metric",
    "Perplexity",
    "SelfAgreement",
    "Verifier",
    "VerifierError",
    "WeightedSum",
    "aesthetic",
    "aesthetic_siglip",
    "cola",
    "formality",
    "held_out",
    "hpsv2",
    "likelihood",
    "parses",
    "pickscore",
    "sentiment",
    "toxicity",
    "toxicity_held_out",
    "violations",
]
