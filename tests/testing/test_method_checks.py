"""The contract test of methods passes on sound ones, and complains about each that breaks a promise."""

from dataclasses import dataclass, replace

import pytest
import torch
from toys import Toy, toy_problems

from redraft import IPR, BestOfN, Blame, Disagreement, Generate, IterRef, Metropolis, Parallel, Preset, Sequential
from redraft.tasks.markov import Markov
from redraft.testing import check_method


def problems():
    return toy_problems([1, 3, 2])


def test_a_sound_method_passes():
    check_method(IPR(2, initial=Sequential(2), refine=Sequential(2), keep=Disagreement()), Toy(), problems())


def test_sound_methods_pass_on_tokens_with_every_kind_of_sampler():
    task = Markov(length=8)
    for sampler in (Preset("remdm-cap", 6), Preset("p2", 6), Sequential(1)):
        check_method(Generate(sampler), task.model, task.problems(3, given=0.3))
        check_method(IPR(2, initial=sampler, refine=sampler), task.model, task.problems(3, given=0.3))


@dataclass(frozen=True)
class Cheap(IPR):
    def nfe(self, model, draft):
        return super().nfe(model, draft) - 1


@dataclass(frozen=True)
class Careless(IPR):
    def _refine(self, model, draft, streams, verifier):
        return replace(draft, state=draft.state.to(draft.state.x + 1, draft.state.t))


@dataclass(frozen=True)
class Unseeded(IPR):
    def _refine(self, model, draft, streams, verifier):
        noise = torch.rand(draft.state.x.shape, generator=torch.Generator().manual_seed(id(draft)))
        free = draft.state.free[..., None]
        return replace(draft, state=draft.state.to(draft.state.x + noise * free, draft.state.t))


@dataclass(frozen=True)
class Once(Generate):
    """Yields its one draft whatever it is given."""

    def drafts(self, model, draft, streams, verifier=None):
        yield from super().drafts(model, replace(draft, number=-1), streams, verifier)


@dataclass(frozen=True)
class Unnumbered(IPR):
    def drafts(self, model, draft, streams, verifier=None):
        for each in super().drafts(model, draft, streams, verifier):
            yield replace(each, number=0)


@dataclass(frozen=True)
class Endless(IPR):
    """States fewer drafts than there are, which never end."""

    def drafts(self, model, draft, streams, verifier=None):
        yield from IPR(10**6, initial=self.initial, refine=self.refine).drafts(model, draft, streams, verifier)


class Untold(Endless):
    """Endless, and says so."""

    def total(self):
        return None


@dataclass(frozen=True)
class Boasting(IPR):
    def total(self):
        return 7


@dataclass(frozen=True)
class Hidden(IPR):
    """What it goes on from is not in its draft."""

    def drafts(self, model, draft, streams, verifier=None):
        for number, each in enumerate(super().drafts(model, draft, streams, verifier)):
            free = each.state.free[..., None]
            yield replace(each, state=each.state.to(each.state.x + number * free, each.state.t))


@dataclass(frozen=True)
class Halfway(IPR):
    """Gives drafts that are not clean."""

    def _generate(self, model, draft, streams):
        state = super()._generate(model, draft, streams).state
        return replace(draft, state=state.to(state.x, state.free / 2))


@dataclass(frozen=True)
class Flat(IPR):
    def nfe(self, model, draft):
        return super().nfe(model, draft).sum()


@dataclass(frozen=True)
class Naming(IPR):
    def total(self):
        return "three"


@dataclass(frozen=True)
class Failing(IPR):
    def _refine(self, model, draft, streams, verifier):
        return {}["refined"]


@dataclass(frozen=True)
class Plain(IPR):
    def drafts(self, model, draft, streams, verifier=None):
        yield draft.state


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (Cheap, "a draft costs more than `nfe` says"),
        (Careless, "given regions change"),
        (Unseeded, "depends on its batch|other samples"),
        (Unnumbered, "drafts are numbered 0, 1, 2, ..., and these are numbered 0, 0, 0"),
        (Endless, "`total` says 3 drafts, and there are more"),
        (Boasting, "`total` says 7 drafts, and there are 3"),
        (Hidden, "begun anew after every draft, it ends with other samples"),
        (Halfway, "a draft is clean, and this one has regions above level 0"),
        (Flat, r"what `nfe` gives is of shape \(\)"),
        (Naming, "what `total` gives is 'three', where int or NoneType is asked for"),
        (Failing, "a run of the method raised KeyError: 'refined'"),
        (Plain, "Plain gave a value of type State, where a Draft is asked for"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(method, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_method(method(iterations=2, initial=Sequential(2), refine=Sequential(2)), Toy(), problems())


def test_a_method_that_yields_whatever_it_is_given_is_told_so():
    with pytest.raises(AssertionError, match="a method begun anew after its last draft yields nothing"):
        check_method(Once(Parallel(2)), Toy(), problems())


def test_a_method_without_an_end_passes_if_it_states_none():
    check_method(
        Untold(initial=Parallel(1), refine=Parallel(1)),
        Toy(regions=2, values=1),
        toy_problems([0, 1], regions=2, values=1),
    )


def least(samples, problems):
    return samples.flatten(1).amin(1)


SEARCH = BestOfN(4, 2, sampler=Parallel(2, stochasticity=1.0))


def test_methods_that_take_a_verifier_pass_with_one():
    check_method(SEARCH, Toy(), problems(), least)
    check_method(
        IterRef((0.5, 0.0), moves=2, sampler=Parallel(2, stochasticity=1.0)), Toy(), problems(), verifier=least
    )
    for settings in ({"select": Blame()}, {"keep": Metropolis(0.5)}):
        check_method(IPR(2, initial=Parallel(2), refine=Parallel(2), **settings), Toy(), problems(), Blaming())


class Blaming:
    def __call__(self, samples, problems):
        return samples.flatten(1).amin(1)

    def blame(self, samples, problems):
        return samples.flatten(2).square().sum(2)


def test_a_method_without_the_verifier_that_it_needs_says_so():
    with pytest.raises(AssertionError, match="needs a verifier: give run"):
        check_method(SEARCH, Toy(), problems())


@dataclass(frozen=True)
class Thrifty(BestOfN):
    def verifier_calls(self, model, draft):
        return super().verifier_calls(model, draft) - 1


@dataclass(frozen=True)
class Undercounting(BestOfN):
    verifier_calls = property()  # asks for two, and does not say so


@dataclass(frozen=True)
class Forgetting(BestOfN):
    """Costs more than it says where it goes on from samples from elsewhere."""

    def nfe(self, model, draft):
        return super().nfe(model, draft) * ("reward" in draft.carry or draft.number < 0)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (Thrifty, "a draft costs more than `verifier_calls` says"),
        (Undercounting, "a draft costs more than `verifier_calls` says"),
        (Forgetting, "a draft costs more than `nfe` says"),
    ],
)
def test_a_method_that_understates_its_costs_beside_a_verifier_is_told_so(method, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_method(method(4, 2, sampler=Parallel(2, stochasticity=1.0)), Toy(), problems(), least)


@dataclass(frozen=True)
class Counting(IPR):
    """Its settings change with use."""

    def nfe(self, model, draft):
        vars(self)["asked"] = vars(self).get("asked", 0) + 1
        return super().nfe(model, draft)


def test_a_method_that_is_changed_by_use_is_told_what_to_do():
    counting = Counting(iterations=2, initial=Sequential(2), refine=Sequential(2))
    with pytest.raises(AssertionError, match="the method is changed by a run: give it an attribute `mark`"):
        check_method(counting, Toy(), problems())
