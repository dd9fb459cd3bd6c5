"""What parts of walks cost: foretold by samplers, never exceeded by methods, on even grids and on uneven ones."""

from dataclasses import replace
from functools import cache

import pipelines
import pytest
import torch
from models_exact import LinearGaussian
from pipelines import PLAIN, embeddings, made
from tokens import exact_model, problems

import redraft
from redraft import (  # fmt: skip
    FK,
    SVDD,
    Beam,
    BestOfN,
    DraftThenVerify,
    Halving,
    IterRef,
    Parallel,
    ParticleGibbs,
    Paths,
    Preset,
    RedraftError,
    Scheduled,
    Sequential,
    Unmask,
    ZeroOrder,
    preset,
)
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.state import Draft
from redraft.core.streams import Streams
from redraft.methods.evolution import Evolution
from redraft.processes.paths import level_at
from redraft.samplers import descend
from redraft.samplers.revising import Corrector

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")  # numpy's, inside it
LEVELS = [(1.0, 0.0), (0.8, 0.3), (0.71, 0.7), (0.5, 0.0), (0.35, 0.34), (1.0, 0.61), (0.2, 0.2), (0.05, 0.01)]


@cache
def model_of(name):
    """An exact model, or a pipeline whose levels are far from even, under guidance."""
    if name == "gaussian":
        return LinearGaussian()
    if name == "tokens":
        return replace(exact_model(), timeless=False)
    pipeline = made(pipelines.stable_diffusion)
    kind = "HeunDiscreteScheduler" if name == "heun" else "DPMSolverMultistepScheduler"
    drawing = {"algorithm_type": "sde-dpmsolver++"} if name == "sde" else {}
    pipeline.scheduler = getattr(pipelines.diffusers, kind)(**drawing, **pipelines.BETAS)
    return redraft.load_model(pipeline, example=embeddings(0, *PLAIN), guidance_scale=3.0)


def problems_of(name):
    model = model_of(name)
    if name == "gaussian":
        return model.problems(model.draw(3, 3), ())
    return problems(3) if name == "tokens" else redraft.prompts(model, [embeddings(n, *PLAIN) for n in (1, 2)])


def verifier(samples, given):
    return samples.double().flatten(1).sum(1)


WALKS = [
    ("gaussian", Parallel(10)),
    ("gaussian", Parallel(7, order=2)),
    ("uneven", Scheduled(8)),
    ("heun", Scheduled(5)),
    ("uneven", Scheduled(8, stochasticity=1.0)),
    ("heun", Scheduled(5, stochasticity=0.5)),  # one evaluation a step, where the solver takes two
    ("gaussian", Parallel(10, stochasticity=1.0, path="vp")),
    ("tokens", Unmask(10, preset("remdm-cap").rule)),  # its walks are never over before their time
    ("tokens", Unmask(9, preset("remdm-cap").rule, corrector=Corrector(0.1, 2))),
]


@pytest.mark.parametrize(("name", "sampler"), WALKS)
@pytest.mark.parametrize(("high", "low"), LEVELS)
def test_a_part_of_a_walk_costs_what_is_foretold(name, sampler, high, low):
    model, given = model_of(name), problems_of(name)
    ledger, state, streams = Ledger(len(given)), given.state(), Streams.root(0, given.ids)
    counted = CountedModel(model, ledger)
    with torch.no_grad():
        up = sampler.rewind(counted, sampler.arrived(counted, state), high, streams.fold("up"))
        descend(sampler, counted, up, low, streams.fold("down"))
    foretold = sampler.between(model, state.free.sum(1), high, low)
    assert ledger.nfe.tolist() == (foretold * getattr(model, "nfe_per_row", 1)).tolist()


@pytest.mark.parametrize(("name", "sampler"), WALKS)
def test_the_parts_of_a_walk_add_up(name, sampler):
    model, regions = model_of(name), torch.tensor([0, 4])
    steps = sampler.steps
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    grid = model.schedule(steps).grid if isinstance(sampler, Scheduled) else even
    grid = (level_at(even) if getattr(sampler, "path", "own") == "vp" else grid).tolist()
    parts = [sampler.between(model, regions, *pair) for pair in zip(grid, grid[1:], strict=False)]
    assert torch.equal(sum(parts), sampler.between(model, regions))
    assert all(part[0] == 0 and part[1] > 0 for part in parts)
    if not isinstance(sampler, Scheduled):
        assert torch.equal(sampler.between(model, regions), sampler.nfe(regions))


def test_walks_that_are_not_taken_up_on_their_way_cost_the_whole():
    regions = torch.tensor([0, 4])
    assert Sequential(3).between(model_of("gaussian"), regions, 0.5).tolist() == Sequential(3).nfe(regions).tolist()
    named = Preset("p2", 6)
    assert torch.equal(
        named.between(model_of("tokens"), regions, 0.6), preset("p2", steps=6).between(None, regions, 0.6)
    )


IN_BLOCKS = [
    Unmask(10, preset("remdm-cap").rule, block=2),
    Unmask(15, preset("remdm-cap").rule, block=1, corrector=Corrector(0.1)),
    Unmask(9, preset("remdm-cap").rule, block=3),
    Unmask(9, preset("p2").rule, block=2, on=0.5),
]


@pytest.mark.parametrize("sampler", IN_BLOCKS)
@pytest.mark.parametrize(("high", "low"), [(0.8, 0.3), (0.71, 0.7), (0.35, 0.34), (1.0, 0.61), (0.2, 0.1)])
def test_a_part_of_a_walk_in_blocks_costs_what_is_foretold(sampler, high, low):
    model, given = model_of("tokens"), problems_of("tokens")
    ledger, state, streams = Ledger(len(given)), given.state(), Streams.root(0, given.ids)
    counted = CountedModel(model, ledger)
    walk = sampler.init(model, model.process.prior(state, state.free, streams), streams)
    walk = descend(sampler, model, walk, low, streams)
    up = sampler.rewind(counted, walk, high, streams.fold("up"), at=low)
    assert (sampler.level(up) >= high - 1e-6).all()
    descend(sampler, counted, up, low, streams.fold("down"))
    assert ledger.nfe.tolist() == sampler.between(model, state.free.sum(1), high, low).tolist()


@pytest.mark.parametrize("sampler", IN_BLOCKS)
@pytest.mark.parametrize("high", [1.0, 0.6, 0.5, 0.21, 0.01])
def test_a_finished_sample_is_walked_again_in_all_its_blocks(sampler, high):
    model, given = model_of("tokens"), problems_of("tokens")
    ledger, state, streams = Ledger(len(given)), given.state(), Streams.root(0, given.ids)
    up = sampler.rewind(model, sampler.arrived(model, state), high, streams.fold("up"))
    assert torch.equal(sampler.level(up), torch.full_like(up.top, high))
    assert torch.equal(up.state.t, torch.full_like(state.t, high))
    descend(sampler, CountedModel(model, ledger), up, 0.0, streams.fold("down"))
    foretold = sampler.between(model, state.free.sum(1), high, 0.0)
    assert (ledger.nfe <= foretold).all()
    if not sampler.corrector:  # a walk that comes from above may have more steps between which to correct
        assert ledger.nfe.tolist() == foretold.tolist()
    again = sampler.rewind(model, up, high, streams.fold("up"))
    assert torch.equal(again.steps, up.steps)


EXACT = [
    BestOfN(4, 2),
    ZeroOrder(2, 2),
    DraftThenVerify(4, 2),
    Halving(8, (0.9, 0.6, 0.3)),
    Paths(2, 3, level=0.5, forward=0.4, backward=0.5),
    Evolution(4, levels=(1.0, 0.7), elites=1),
    FK(3),
    SVDD(2),
    Beam(2, 2),
]  # fmt: skip
BOUNDED = [
    IterRef((0.9, 0.0), 0.2, moves=2),
    IterRef((0.7, 0.0), 0.2, moves=1, a=1.0, rounds=1),
    ParticleGibbs(2, 3),
]


def spent_and_foretold(method, name, given):
    model = model_of(name)
    result = redraft.run(method, model, given, verifier=verifier, progress=False)
    foretold, draft = torch.zeros(len(given), dtype=torch.int64), Draft(given.state())
    for number in range(method.total()):
        foretold = foretold + method.nfe(model, replace(draft, number=number - 1))
    return result.ledger.nfe, foretold * getattr(model, "nfe_per_row", 1)


@pytest.mark.parametrize("method", EXACT + BOUNDED, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize(
    ("name", "sampler"), [("uneven", Scheduled(6)), ("heun", Scheduled(4)), ("gaussian", Parallel(7))]
)
def test_a_method_costs_what_it_says_where_nothing_is_saved(method, name, sampler):
    samplers = {"sampler": sampler} | ({"draft": sampler} if isinstance(method, DraftThenVerify) else {})
    if isinstance(method, FK | SVDD | Beam | ParticleGibbs):
        samplers = {"sampler": replace(sampler, stochasticity=1.0)}
    spent, foretold = spent_and_foretold(replace(method, **samplers), name, problems_of(name))
    assert (spent <= foretold).all()
    if method in EXACT:
        assert spent.tolist() == foretold.tolist()


def test_a_trajectory_whose_solver_remembers_is_not_held():
    method = ParticleGibbs(2, 3, sampler=Scheduled(6))
    with pytest.raises(RedraftError, match="whose solver remembers the steps before: choose a scheduler of single"):
        redraft.run(method, model_of("sde"), problems_of("sde"), verifier=verifier, progress=False)


@pytest.mark.parametrize("method", [*EXACT[3:5], *EXACT[6:], *BOUNDED], ids=lambda method: type(method).__name__)
def test_rows_that_arrive_early_make_the_others_no_dearer(method):
    for sampler in (Unmask(4), Unmask(12), Unmask(16, block=2), Unmask(16, block=2, aligned=True)):
        spent, foretold = spent_and_foretold(replace(method, sampler=sampler), "tokens", problems(40))
        assert (spent <= foretold).all()
        assert (spent < foretold).any()


@pytest.mark.parametrize("method", [*EXACT[3:6], *EXACT[6:], *BOUNDED], ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("sampler", [*IN_BLOCKS, replace(IN_BLOCKS[0], aligned=True)])
def test_no_method_costs_more_than_it_says_in_blocks(method, sampler):
    if isinstance(method, Evolution):
        method = replace(method, levels=(0.7, 0.4))
    given = problems(6)
    given = replace(given, frozen=torch.arange(4) >= torch.tensor([4, 1, 2, 3, 4, 4])[:, None])
    spent, foretold = spent_and_foretold(replace(method, sampler=sampler), "tokens", given)
    assert (spent <= foretold).all()
