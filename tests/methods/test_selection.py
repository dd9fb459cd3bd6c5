"""Which regions are redrawn, and how often."""

from dataclasses import replace

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p
from models_exact import LinearGaussian
from tokens import problems
from toys import Toy, toy_problems

from redraft import Blame, Disagreement, RedraftError, Sweep, Uncertainty, Uniform
from redraft.core.ranking import choose
from redraft.core.state import Prediction, State
from redraft.core.streams import Streams
from redraft.models.tokens import Convention, TokenModel

ROWS = 6000


def chosen(select, model, problems, k, round_=0, seed=0):
    """Regions (P, R) that are chosen from the problems' own values."""
    state = problems.state()
    state = state.to(problems.x, torch.zeros_like(state.t))
    number = torch.full((len(problems),), k)
    priority = select(model, state, number, round_, Streams.root(seed, problems.ids))
    regions = choose(priority, state.free, number)
    assert (regions.sum(1) == number).all()
    assert not (regions & problems.frozen).any()
    return regions


def same_given(rows, frozen=(), regions=6):
    problems = toy_problems([0] * rows, regions)
    problems.frozen[:, list(frozen)] = True
    return problems


def test_uniform_chooses_every_set_as_often_as_any_other():
    regions = chosen(Uniform(), Toy(), same_given(ROWS, frozen=[3]), k=2)
    sets = regions.long() @ (2 ** torch.arange(6))
    _, counts = sets.unique(return_counts=True)
    assert len(counts) == 10  # pairs out of five
    assert counts_p(counts, torch.ones(10)) > FALSE_ALARM
    assert counts_p(counts, torch.tensor([1.3] + [1.0] * 9)) < 1e-3


def test_uniform_chooses_anew_in_every_round_for_every_row_and_seed():
    problems = same_given(60)
    first, later = (chosen(Uniform(), Toy(), problems, 2, round_) for round_ in (0, 1))
    other = chosen(Uniform(), Toy(), problems, 2, seed=1)
    for a, b in ((first, later), (first, other), (first[1:], first[:-1])):
        assert 0 < (a == b).all(1).sum() < 20  # 1 set in 15 is the same by chance


@pytest.mark.parametrize(("free", "k"), [(6, 2), (4, 2), (5, 1), (6, 6), (3, 3)])
def test_a_sweep_takes_every_region_once_before_any_twice(free, k):
    problems = same_given(50, frozen=range(6 - free))
    for sweep in range(3):
        rounds = free // k
        parts = [chosen(Sweep(), Toy(), problems, k, sweep * rounds + i) for i in range(rounds)]
        assert (sum(p.long() for p in parts) == (~problems.frozen).long()).all()


def test_a_sweep_misses_no_region_where_k_does_not_divide_n():
    problems = same_given(50, frozen=[0])
    for sweep in range(2):
        parts = [chosen(Sweep(), Toy(), problems, 2, sweep * 3 + i).long() for i in range(3)]
        counts = sum(parts)[:, 1:]
        assert counts.min() == 1
        assert counts.max() == 2


def test_sweeps_have_their_own_order_each_time_and_each_row():
    problems = same_given(200)
    one, two = (chosen(Sweep(), Toy(), problems, 1, round_).long().argmax(1) for round_ in (0, 6))
    assert 0.05 < (one == two).float().mean() < 0.35
    assert counts_p(one.bincount(minlength=6), torch.ones(6)) > FALSE_ALARM


class Unsure(Toy):
    """Says that its uncertainty is `stated`, whatever it is asked."""

    stated = torch.tensor([0.1, 0.2, 0.3, 0.4, 1.0, 0.5])

    def predict(self, state):
        assert ((state.t == 0) == state.frozen).all()
        return Prediction(state.x, self.stated.expand(len(state), 6))


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_uncertain_regions_are_chosen_in_proportion(sharpness):
    problems = same_given(ROWS, frozen=[5])
    counts = chosen(Uncertainty(sharpness=sharpness), Unsure(), problems, 1).sum(0)[:5]
    weights = Unsure.stated[:5] ** (2 * sharpness)
    assert counts_p(counts, weights) > FALSE_ALARM
    assert counts_p(counts, Unsure.stated[:5] ** (2 * sharpness + 0.4)) < CERTAIN


def corrupted(rows=400):
    """Exact draws of a strongly correlated law in which region 2 is then turned upside down."""
    model = LinearGaussian(regions=5, correlation=0.95)
    x = model.draw(rows, 0)
    x[:, 2] = 2 * model.mean[2] - x[:, 2] + 1.5
    return model, model.problems(x)


def test_the_network_disagrees_with_the_odd_region():
    model, problems = corrupted()
    state = problems.state()
    state = state.to(problems.x, torch.zeros_like(state.t))
    amount = Disagreement(level=0.5, draws=4).measure(model, state, Streams.root(0, problems.ids)).mean(0)
    assert amount.argmax() == 2
    assert amount[2] > 1.5 * amount[[0, 1, 3, 4]].max()


def test_odd_regions_are_chosen_more_often_the_sharper():
    model, problems = corrupted()
    shares = [
        float(chosen(Disagreement(level=0.5, sharpness=s), model, problems, 1)[:, 2].float().mean()) for s in (0, 1, 4)
    ]
    assert abs(shares[0] - 0.2) < 0.08
    assert shares[0] + 0.1 < shares[1] < shares[2]


def test_more_draws_average_and_cost_more():
    model, problems = corrupted(50)
    state = problems.state()
    state = state.to(problems.x, torch.zeros_like(state.t))
    streams = Streams.root(0, problems.ids)
    one, four = (Disagreement(draws=n).measure(model, state, streams) for n in (1, 4))
    assert not torch.equal(one, four)
    assert Disagreement(draws=4).nfe == 4
    repeats = [Disagreement(draws=1).measure(model, state, Streams.root(s, problems.ids)) for s in range(8)]
    fours = [Disagreement(draws=4).measure(model, state, Streams.root(s, problems.ids)) for s in range(8)]
    assert torch.stack(fours).var(0).mean() < 0.5 * torch.stack(repeats).var(0).mean()


@pytest.mark.parametrize(
    "make", [lambda: Uncertainty(level=0), lambda: Uncertainty(level=1), lambda: Disagreement(level=1)]
)
def test_levels_at_which_nothing_can_be_asked_are_refused(make):
    with pytest.raises(RedraftError, match=r"it must be a number in \(0, 1\)"):
        make()


def test_no_draws_are_refused():
    with pytest.raises(RedraftError, match="draws is 0"):
        Disagreement(draws=0)


def test_selection_by_uncertainty_needs_a_model_that_has_it():
    with pytest.raises(RedraftError, match="selection by uncertainty needs a model that offers 'uncertainty'"):
        chosen(Uncertainty(), Toy(offers=["regions"]), same_given(2), 1)


@pytest.mark.parametrize("select", [Uniform(), Sweep(), Uncertainty(), Disagreement()], ids=lambda s: type(s).__name__)
def test_padding_changes_no_choice(select):
    """A row of tokens with places before it that are not visible is redrawn where it is without them."""
    model = TokenModel("flat", flat, Convention(4, 3))

    def chosen_of(pad):
        given = problems(20, 8 + pad)
        visible = (torch.arange(8 + pad) >= pad).expand(20, -1)
        state = replace(given, frozen=~visible, cond={"visible": visible}).state()
        state = state.to(torch.arange(8 + pad).expand(20, -1) % 3, torch.zeros_like(state.t))
        priority = select(model, state, torch.full((20,), 3), 1, Streams.root(0, given.ids))
        return choose(priority, state.free, torch.full((20,), 3))[:, pad:]

    assert torch.equal(chosen_of(0), chosen_of(3))


def flat(x, state):
    return torch.zeros(*x.shape, 4), None


@pytest.mark.parametrize("places", [0, 4])
def test_without_a_floor_only_what_is_blamed_is_chosen(places):
    """Wherever the row stands: given regions before it use no number up, and regions without fault do not fill it."""

    class Blames:
        def blame(self, samples, problems):
            return (torch.arange(samples.shape[1]) == places + 4).double().expand(len(samples), -1)

    frozen = torch.arange(8 + places)[None] < places
    state = State(torch.zeros(1, 8 + places), torch.zeros(1, 8 + places), frozen, torch.arange(1))
    priority, number = Blame(floor=0).chosen(
        Toy(), state, torch.tensor([4]), 0, Streams.root(0, torch.arange(1)), Blames()
    )
    assert choose(priority, state.free, number)[0].nonzero()[:, 0].tolist() == [places + 4]


def test_positions_that_may_not_be_chosen_use_no_rank_up():
    priority = torch.tensor([[0.0, 3.0, -torch.inf, -torch.inf, 1.0]])
    where = torch.tensor([[False, False, False, True, True]])
    assert choose(priority, where, torch.tensor([2]))[0].tolist() == [False, False, False, True, True]
    assert choose(priority, where, torch.tensor([1]))[0].tolist() == [False, False, False, False, True]
