"""Names of models, tasks, methods, samplers and verifiers, imported when first asked for; entry points add to them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import reduce
from importlib.metadata import entry_points
from typing import Any

from redraft.core.errors import RedraftError, said, unknown


class Registry(Mapping[str, Any]):
    """Lazy objects by name.

    A name's target is `"module:attribute"`. The entry-point group `redraft.<kind>s` adds to the names given here, and
    takes none of them away: a name that ships stays what it is.
    """

    def __init__(self, kind: str, targets: dict[str, str]) -> None:
        """A registry of things of one `kind`, such as 'model'."""
        self.kind, self._builtin = kind, targets

    def targets(self) -> dict[str, str]:
        """Where each name's object lives; of a name that several packages give, in the first of them."""
        return {name: values[0] for name, values in self._added().items()} | self._builtin

    def ships(self, name: object) -> bool:
        """Whether the name is one of redraft's own."""
        return name in self._builtin

    def __getitem__(self, name: str) -> Any:
        """The object called `name`.

        Raises:
            RedraftError: there is none, and the nearest name is suggested; several packages give one, or the package
                that gives it cannot be imported.
        """
        if name in self._builtin:  # entry points take long to read
            return _object(self._builtin[name])
        added = self._added()
        if name not in added:
            raise unknown(self.kind, name, self.targets())
        if len(added[name]) > 1:
            raise RedraftError(f"several packages give a {self.kind} {name!r}: {' and '.join(added[name])}")
        try:
            return _object(added[name][0])
        except Exception as error:  # whatever another package throws
            what = f"the {self.kind} {name!r}, {added[name][0]} of another package,"
            raise RedraftError(f"{what} cannot be imported: {said(error)}") from error

    def usable(self) -> list[tuple[str, Any]]:
        """Names and objects, sorted, without those of other packages that cannot be imported."""
        found = []
        for name in self:
            with suppress(RedraftError):
                found.append((name, self[name]))
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is an object called `name`; it is not imported."""
        return name in self._builtin or name in self._added()

    def __iter__(self) -> Iterator[str]:
        """All names, sorted."""
        return iter(sorted(self.targets()))

    def __len__(self) -> int:
        """How many names there are."""
        return len(self.targets())

    def _added(self) -> dict[str, list[str]]:
        """The different targets of each name that other packages give, without extras."""
        found: dict[str, list[str]] = {}
        for point in entry_points(group=f"redraft.{self.kind}s"):
            target, known = point.value.partition("[")[0].strip(), found.setdefault(point.name, [])
            known += [target] if target not in known else []
        return found


def _object(target: str) -> Any:
    """What lives at `"module:attribute"`, or an attribute of one."""
    module, _, path = target.partition(":")
    return reduce(getattr, filter(None, path.split(".")), importlib.import_module(module))


MODELS = Registry(
    "model",
    {
        "sudoku": "redraft.models.sudoku:SudokuModel",
        "python": "redraft.models.reference:PythonModel",
        "sudoku-tokens": "redraft.models.reference:SudokuTokensModel",
        "digits": "redraft.models.class_digits:DigitsModel",
    },
)
TASKS = Registry(
    "task",
    {
        "sudoku": "redraft.tasks.sudoku:Sudoku",
        "python": "redraft.tasks.python:Python",
        "sudoku-tokens": "redraft.tasks.sudoku_tokens:SudokuTokens",
        "markov": "redraft.tasks.markov:Markov",
        "digits": "redraft.tasks.class_digits:ClassDigits",
        "prompts": "redraft.tasks.prompted:Prompted",
    },
)
VERIFIERS = Registry(
    "verifier",
    {
        "violations": "redraft.verifiers.constraints:violations",
        "parses": "redraft.verifiers.constraints:parses",
        "likelihood": "redraft.verifiers.constraints:likelihood",
        "line-kind": "redraft.verifiers.kinds:LineKind",
        "metric": "redraft.verifiers.constraints:Metric",
        "classifier": "redraft.verifiers.text:Classifier",
        "toxicity": "redraft.verifiers.text:toxicity",
        "toxicity-held-out": "redraft.verifiers.text:toxicity_held_out",
        "sentiment": "redraft.verifiers.text:sentiment",
        "cola": "redraft.verifiers.text:cola",
        "formality": "redraft.verifiers.text:formality",
        "perplexity": "redraft.verifiers.text:Perplexity",
        "clip": "redraft.verifiers.pictures:CLIPScore",
        "pickscore": "redraft.verifiers.pictures:pickscore",
        "hpsv2": "redraft.verifiers.open_clip:hpsv2",
        "aesthetic": "redraft.verifiers.pictures:aesthetic",
        "aesthetic-siglip": "redraft.verifiers.pictures:aesthetic_siglip",
        "image-reward": "redraft.verifiers.image_reward:ImageReward",
        "vqa": "redraft.verifiers.pictures:VQA",
        "image-classifier": "redraft.verifiers.pictures:ImageClassifier",
        "grader": "redraft.verifiers.grader:Grader",
        "digit-classifier": "redraft.verifiers.class_digits:classifier",
        "digit-oracle": "redraft.verifiers.class_digits:oracle",
        "digit-agreement": "redraft.verifiers.class_digits:self_supervised",
        "weighted-sum": "redraft.verifiers.combined:WeightedSum",
        "mean-rank": "redraft.verifiers.combined:MeanRank",
        "batched": "redraft.core.batched:Batched",
    },
)
METHODS = Registry(
    "method",
    {
        "generate": "redraft.methods.generate:Generate",
        "ipr": "redraft.methods.ipr:IPR",
        "iterref": "redraft.methods.iterref:IterRef",
        "best-of-n": "redraft.methods.best_of_n:BestOfN",
        "fk": "redraft.methods.fk:FK",
        "svdd": "redraft.methods.svdd:SVDD",
        "beam": "redraft.methods.beam:Beam",
        "zero-order": "redraft.methods.zero_order:ZeroOrder",
        "paths": "redraft.methods.paths:Paths",
        "draft-then-verify": "redraft.methods.drafts:DraftThenVerify",
        "halving": "redraft.methods.drafts:Halving",
        "evolution": "redraft.methods.evolution:Evolution",
        "particle-gibbs": "redraft.methods.particle_gibbs:ParticleGibbs",
    },
)
SAMPLERS = Registry(
    "sampler",
    {
        "ancestral": "redraft.samplers.presets:ancestral",
        "maskgit": "redraft.samplers.presets:maskgit",
        "margin": "redraft.samplers.presets:margin",
        "entropy": "redraft.samplers.presets:least_entropy",
        "llada": "redraft.samplers.presets:llada",
        "llada2": "redraft.samplers.presets:llada2",
        "llada2.1": "redraft.samplers.presets:llada2_1",
        "dream": "redraft.samplers.presets:dream",
        "threshold": "redraft.samplers.presets:threshold",
        "entropy-bounded": "redraft.samplers.presets:entropy_bounded",
        "halton": "redraft.samplers.presets:halton",
        "remdm-cap": "redraft.samplers.presets:remdm_cap",
        "remdm-rescale": "redraft.samplers.presets:remdm_rescale",
        "remdm-conf": "redraft.samplers.presets:remdm_conf",
        "remdm-conf-released": "redraft.samplers.presets:remdm_conf_released",
        "remdm-loop": "redraft.samplers.presets:remdm_loop",
        "forward-backward": "redraft.samplers.presets:forward_backward",
        "corrector": "redraft.samplers.presets:corrected",
        "p2": "redraft.samplers.presets:p2",
        "p2-released": "redraft.samplers.presets:p2_released",
        "token-critic": "redraft.samplers.presets:token_critic",
        "prism": "redraft.samplers.presets:prism",
        "star": "redraft.samplers.presets:star",
        "star+": "redraft.samplers.presets:star_plus",
        "star-loop": "redraft.samplers.presets:star_loop",
        "g-star+": "redraft.samplers.presets:g_star_plus",
        "g-star-loop": "redraft.samplers.presets:g_star_loop",
    },
)
