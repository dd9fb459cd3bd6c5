"""Methods that need random steps, or samples that differ, refuse samplers that would give them copies."""

import inspect

import diffusers
import pipelines
import pytest
import torch
from models_exact import LinearGaussian
from pipelines import PLAIN, embeddings, made
from tokens import exact_model
from tokens import problems as token_problems

import redraft
from redraft import (  # fmt: skip
    FK,
    SVDD,
    Beam,
    BestOfN,
    DraftThenVerify,
    Evolution,
    Halving,
    Parallel,
    ParticleGibbs,
    Preset,
    RedraftError,
    Scheduled,
    Sequential,
    Unmask,
    preset,
)
from redraft.processes.categorical import Draw
from redraft.samplers.budgets import Even, Refresh, Threshold
from redraft.samplers.revising import Corrector
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Confidence

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")  # numpy's, inside it
FLUX = ("prompt_embeds", "pooled_prompt_embeds")
STEPPING = [SVDD(3), Beam(2, 2), FK(3), ParticleGibbs(2, 3)]
RESTARTING = [BestOfN(4, 2), DraftThenVerify(4, 2), Halving(4, (0.5,)), Evolution(4, (0.5,))]


def score(samples, given):
    return samples.double().flatten(1).sum(1)


def setting(name):
    """A model, two of its problems, and a sampler of it that draws nothing in its steps."""
    if name == "digits":
        model = redraft.load_model("digits")
        return model, redraft.load_task("digits").problems(2), Parallel(4)
    if name == "python":
        return redraft.load_model("python"), redraft.load_task("python").problems(2), Preset("llada", 6)
    if name == "flux":
        pipeline, names, options = made(pipelines.flux), FLUX, {"height": 16, "width": 16}
    else:
        pipeline, names, options = made(pipelines.stable_diffusion), PLAIN, {"guidance_scale": 1.0}
    model = redraft.load_model(pipeline, example=embeddings(0, *names), **options)
    return model, redraft.prompts(model, [embeddings(n, *names) for n in (1, 2)]), Scheduled(4)


def quick(sampler):
    """The same sampler with random steps."""
    if isinstance(sampler, Preset):
        return Preset("ancestral", 6)
    return type(sampler)(4, stochasticity=1.0)


@pytest.mark.parametrize("name", ["digits", "flux", "sd", "python"])
@pytest.mark.parametrize("method", STEPPING, ids=lambda method: type(method).__name__)
def test_several_walks_of_one_state_are_refused_or_differ(name, method):
    model, problems, still = setting(name)
    how = {"verifier": score, "progress": False}
    with pytest.raises(RedraftError, match=r"they would be copies: give it a sampler whose steps are random, such as"):
        redraft.run(type(method)(**vars(method) | {"sampler": still}), model, problems, **how)
    result = redraft.run(type(method)(**vars(method) | {"sampler": quick(still)}), model, problems, **how)
    assert (result.trace["candidates"] > 1).all()
    assert (result.trace["distinct"] > 1).all()


@pytest.mark.parametrize("name", ["digits", "flux", "sd", "python"])
@pytest.mark.parametrize("method", RESTARTING, ids=lambda method: type(method).__name__)
def test_several_samples_are_refused_or_differ(name, method):
    model, problems, still = setting(name)
    settings = vars(method) | {"sampler": still} | ({"draft": still} if isinstance(method, DraftThenVerify) else {})
    if name == "python":
        with pytest.raises(RedraftError, match=r"would be copies: .* such as Preset\('llada', 6, temperature=1.0\)"):
            redraft.run(type(method)(**settings), model, problems, verifier=score, progress=False)
        settings |= {name: Preset("llada", 6, temperature=1.0) for name in ("sampler", "draft") if name in settings}
        settings |= {"sampler": Preset("ancestral", 6)} if isinstance(method, Halving | Evolution) else {}
    result = redraft.run(type(method)(**settings), model, problems, verifier=score, progress=False)
    last = result.trace["draft"] == result.trace["draft"].max()
    assert (result.trace["distinct"][last] > 1).all()


@pytest.mark.parametrize("name", ["digits", "sd", "python"])
def test_without_a_sampler_the_method_takes_one_with_random_steps(name):
    model, problems, _ = setting(name)
    result = redraft.run(SVDD(2), model, problems[:1], verifier=score, progress=False)
    assert (result.trace["distinct"] > 1).all()


def test_one_child_or_one_sample_needs_no_randomness():
    model, problems, still = setting("digits")
    for method in (SVDD(1, sampler=still), Beam(1, 1, sampler=still), FK(1, sampler=still)):
        redraft.run(method, model, problems, verifier=score, progress=False)
    redraft.run(BestOfN(1, sampler=preset("llada", steps=3)), exact_model(), token_problems(1), verifier=score)


def test_a_search_among_copies_says_so_once():
    """Top-p that leaves one token: the sampler draws, and always the same."""
    narrow = Unmask(4, Rule(Even(), Confidence()), draw=Draw(top_p=1e-6))
    with pytest.warns(UserWarning, match="BestOfN ended with one distinct candidate of 4 for every problem") as said:
        result = redraft.run(BestOfN(4, sampler=narrow), exact_model(), token_problems(3), verifier=score)
    assert len(said) == 1
    assert result.trace["distinct"].tolist() == [1] * 12
    assert result.trace["candidates"].reshape(4, 3)[:, 0].tolist() == [1, 2, 3, 4]


def test_distinct_candidates_are_counted_over_drafts_and_after_a_checkpoint(tmp_path):
    method, model = BestOfN(6, 2, Unmask(4)), exact_model()
    whole = redraft.run(method, model, token_problems(5), verifier=score)
    seen = redraft.run(BestOfN(6, 6, Unmask(4)), model, token_problems(5), verifier=score)
    assert whole.trace["distinct"][-5:].tolist() == seen.trace["distinct"].tolist()
    stop = {"on_draft": lambda samples, trace: len(trace) >= 10, "checkpoint": tmp_path}
    redraft.run(method, model, token_problems(5), verifier=score, **stop)
    rest = redraft.run(method, model, token_problems(5), verifier=score, checkpoint=tmp_path)
    assert rest.trace == whole.trace


@pytest.mark.parametrize(
    ("sampler", "steps", "start"),
    [
        (Parallel(3), False, True),
        (Parallel(3, order=2), False, True),
        (Parallel(3, stochasticity=0.5), True, True),
        (Parallel(3, stochasticity=0.5, temperature=0.0), False, True),
        (Parallel(1, stochasticity=1.0), False, True),  # the last step draws nothing
        (Sequential(3), True, True),
        (Sequential(3, stochasticity=0.0), False, True),
        (Sequential(3, stochasticity=0.0, order="random"), True, True),
    ],
)
def test_what_continuous_samplers_say_of_themselves(sampler, steps, start):
    model = LinearGaussian()
    assert (sampler.random_steps(model), sampler.random_start(model)) == (steps, start)
    given = model.problems(model.draw(2, 0)[:1].repeat(2, 1, 1))
    state = given.state()
    noise = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    streams = redraft.core.streams.Streams.root(0, given.ids)
    out = redraft.samplers.sample(sampler, model, state.to(noise.clone(), torch.ones_like(state.t)), streams)
    assert torch.equal(out.x[0], out.x[1]) != steps


COLD = Draw(temperature=0)


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        (Unmask(4), True),
        (Unmask(4, draw=COLD), True),  # which are revealed is drawn
        (Unmask(4, Rule(Even(), Confidence()), draw=COLD), False),
        (Unmask(4, Rule(Threshold(0.9), Confidence()), draw=COLD), False),
        (Unmask(4, Rule(Even(), Confidence(), 1.0), draw=COLD), True),
        (Unmask(4, Rule(Even(), None), draw=COLD), True),
        (Unmask(4, Rule(Refresh(number=1), Confidence()), draw=COLD), False),
        (Unmask(4, Rule(Refresh(0.1), Confidence()), draw=COLD), True),
        (Unmask(4, Rule(Even(), Confidence()), on=0.5, draw=COLD), True),  # outside the window it is ancestral
        (Unmask(4, Rule(Even(), Confidence()), draw=COLD, corrector=Corrector()), True),
        (Preset("llada"), False),
        (Preset("llada", temperature=0.5), True),
        (Parallel(3), True),
        (Sequential(2, temperature=0.0), True),
        (Sequential(1, temperature=0.0, order="raster"), False),
    ],
)
def test_what_samplers_of_tokens_say_of_themselves(sampler, steps):
    assert sampler.random_steps(exact_model()) is steps
    assert not sampler.random_start(exact_model())


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        (diffusers.DDIMScheduler, False),
        (diffusers.DDPMScheduler, True),
        (diffusers.EulerDiscreteScheduler, False),
        (diffusers.EulerAncestralDiscreteScheduler, True),
        (diffusers.DPMSolverMultistepScheduler, False),
        (diffusers.HeunDiscreteScheduler, False),
        (diffusers.UniPCMultistepScheduler, False),
        (diffusers.LCMScheduler, True),
    ],
)
def test_a_pipelines_solver_is_tried(scheduler, steps):
    clip = {"clip_sample": False} if "clip_sample" in inspect.signature(scheduler).parameters else {}
    pipeline = made(pipelines.stable_diffusion, scheduler(**clip, **pipelines.BETAS))
    model = redraft.load_model(pipeline, example=embeddings(0, *PLAIN), guidance_scale=1.0)
    assert Scheduled(4).random_steps(model) is steps
    assert Scheduled(4, stochasticity=0.5).random_steps(model)
    assert Scheduled(4).random_start(model)


def test_a_path_is_changed_of_flows_alone():
    model, problems, _ = setting("sd")
    with pytest.raises(RedraftError, match="changes the path of a flow, and 'StableDiffusionPipeline' is none"):
        redraft.run(FK(sampler=Scheduled(4, stochasticity=1.0, path="vp")), model, problems, verifier=score)
    with pytest.raises(RedraftError, match="set stochasticity=1"):
        Scheduled(4, path="vp")
    with pytest.raises(RedraftError, match="unknown path 'ddpm'"):
        Parallel(4, path="ddpm")
    flux, problems, _ = setting("flux")
    result = redraft.run(
        FK(3, sampler=Scheduled(4, stochasticity=1.0, path="vp")), flux, problems, verifier=score, progress=False
    )
    assert result.ledger.nfe.tolist() == [12, 12]
