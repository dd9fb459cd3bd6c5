"""The contract test of samplers passes on those that ship, and complains about each that breaks a promise."""

from dataclasses import dataclass, replace
from itertools import count

import pytest
import torch
from toys import Toy, toy_problems

from redraft import Parallel, Preset, Sequential
from redraft.tasks.markov import Markov
from redraft.testing import check_sampler

CALLS = count()


def problems():
    return toy_problems([1, 3, 2])


@pytest.mark.parametrize(
    "sampler",
    [Parallel(3), Parallel(3, order=2), Parallel(3, stochasticity=1.0), Parallel(1), Sequential(2, overlap=0.5)],
)
def test_sound_samplers_pass(sampler):
    check_sampler(sampler, Toy(), problems())


@pytest.mark.parametrize(
    "sampler",
    [
        Parallel(3),
        Sequential(1, order="random"),
        Preset("remdm-cap", 5),
        Preset("threshold"),
        Preset("llada2.1", settings=("block=4",)),
        Preset("maskgit", 4, settings=("noise=0",), temperature=0),
    ],
)
def test_sound_samplers_pass_on_tokens(sampler):
    task = Markov(length=8)
    check_sampler(sampler, task.model, task.problems(3, given=0.3))


@dataclass(frozen=True)
class Broken(Parallel):
    """A sound sampler, of which others break one thing."""

    steps: int = 3


class Averaging(Broken):
    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        state = walk.state
        mixed = torch.where((state.t > 0)[..., None], state.x + state.x.mean(0), state.x)
        return replace(walk, state=state.to(mixed, state.t))


class Overwriting(Broken):
    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        return replace(walk, state=walk.state.to(walk.state.x + 1, walk.state.t))


class Endless(Broken):
    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        return replace(walk, step=walk.step.clamp_max(1))


class Hasty(Broken):
    """Says that it has arrived while there is noise left."""

    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        t = walk.state.t + 0.1 * (walk.top > 0)
        return replace(walk, state=walk.state.to(walk.state.x, t))


class Modest(Broken):
    def between(self, model, regions, high=1.0, low=0.0):
        return (super().between(model, regions, high, low) - 1).clamp_min(0)


class Cheap(Broken):
    def nfe(self, regions, level=1.0):
        return super().nfe(regions, level) - 1


class Unfair(Broken):
    """States all of its cost for the first half."""

    def between(self, model, regions, high=1.0, low=0.0):
        return super().between(model, regions, high, low) * (high == 1.0)


class Certain(Broken):
    """Says that its steps draw numbers."""

    def random_steps(self, model):
        return True


@dataclass(frozen=True)
class Secretive(Broken):
    """Does not say that its steps draw numbers."""

    stochasticity: float = 1.0

    def random_steps(self, model):
        return False


class Fixed(Broken):
    """Does not say that its outcome depends on the noise."""

    def random_start(self, model):
        return False


class Moody(Broken):
    mark = "moody"

    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        moved = walk.state.x + next(CALLS) * (walk.state.t > 0)[..., None]
        return replace(walk, state=walk.state.to(moved, walk.state.t))


class Rolling(Broken):
    def init(self, model, state, streams):
        torch.rand(1)
        return super().init(model, state, streams)


class Glancing(Broken):
    """Forgets what it has looked at."""

    def look(self, model, walk):
        super().look(model, walk)
        return walk


class Peeking(Broken):
    """Moves where it should only look."""

    def look(self, model, walk):
        return self.step(model, walk, None)


class Level(Broken):
    def level(self, walk):
        return super().level(walk).clamp_min(0.1)


class Rising(Broken):
    def level(self, walk):
        return torch.where(walk.done, 0.0, walk.step + 1.0)


class Whole(Broken):
    def level(self, walk):
        return super().level(walk).max()


class Midway(Broken):
    def arrived(self, model, state):
        return (
            super()
            .arrived(model, state)
            .__class__(state, state.t, *[torch.full_like(state.problem, n) for n in (1, 3)])
        )


class Asking(Broken):
    def rewind(self, model, walk, level, streams, at=0.0):
        model.predict(walk.state)
        return super().rewind(model, walk, level, streams, at)


class Short(Broken):
    def rewind(self, model, walk, level, streams, at=0.0):
        return super().rewind(model, walk, level / 4, streams, at)


class Stateless(Broken):
    def init(self, model, state, streams):
        return "walk"


class Failing(Broken):
    def step(self, model, walk, streams):
        raise ZeroDivisionError("no steps")


class Vague(Broken):
    by_level = "sometimes"


class Changing(Broken):
    def step(self, model, walk, streams):
        vars(self)["taken"] = vars(self).get("taken", 0) + 1
        return super().step(model, walk, streams)


@pytest.mark.parametrize(
    ("sampler", "complaint"),
    [
        (Averaging, "where a row ends depends on its batch"),
        (Overwriting, "regions at level 0 change"),
        (Endless, "a walk ends within the steps that `between` states, and this one goes on"),
        (Hasty, "a walk has arrived above level 0"),
        (Modest, "a walk costs more than `between` says"),
        (Cheap, "a walk costs more than `nfe` says"),
        (Unfair, "a walk from 0.5 to 0 costs more than `between` says"),
        (Certain, "`random_steps` says True, and the ends of 8 walks from one state are alike"),
        (Secretive, "`random_steps` says False, and the ends of 8 walks from one state differ"),
        (Fixed, "`random_start` says False, and the ends of 8 walks from several priors differ"),
        (Moody, "the same streams lead to another end"),
        (Rolling, "a global random generator was moved"),
        (Glancing, "a look and the step after it cost more than the step alone"),
        (Peeking, "look raised|a look changes the state"),
        (Level, "the level is 0 where a row has arrived"),
        (Rising, "the level of a walk rises"),
        (Whole, r"what `level` gives is of shape \(\)"),
        (Midway, "`arrived` gives a walk that is not at its end"),
        (Asking, "`rewind` asks the network"),
        (Short, "`rewind` does not reach its level"),
        (Stateless, "the `state` of what `init` gives is None"),
        (Failing, "step raised ZeroDivisionError: no steps"),
        (Vague, "`by_level` is 'sometimes', where bool is asked for"),
        (Changing, "the sampler is changed by a walk: give it an attribute `mark`"),
    ],
)
def test_a_broken_sampler_is_told_what_is_wrong(sampler, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_sampler(sampler(), Toy(), problems())


class Leaving(Parallel):
    """Puts a mask back in its last step."""

    def step(self, model, walk, streams):
        walk = super().step(model, walk, streams)
        back = walk.done[:, None] & (walk.top > 0)
        return replace(walk, state=walk.state.to(walk.state.x.masked_fill(back, model.process.mask), walk.state.t))


def test_a_sampler_that_leaves_masks_is_told_so():
    task = Markov(length=8)
    with pytest.raises(AssertionError, match="a walk ends with masks"):
        check_sampler(Leaving(3), task.model, task.problems(3, given=0.3))
