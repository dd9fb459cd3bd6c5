"""Diffusers pipelines as models: their own call reproduced, stopped, resumed, counted and searched."""

import gc
import inspect
import weakref

import diffusers
import pipelines
import pytest
import torch
from pipelines import BETAS, MASKED, PLAIN, POOLED, embeddings, made

import redraft
from redraft import RedraftError
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.models.probe import Draws
from redraft.samplers import Scheduled, advance, sample

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:diffusers(\..*)?")  # numpy's, inside it
SMALL = {"height": 16, "width": 16}
TOLD = (*PLAIN, "prompt_embeds_mask", "negative_prompt_embeds_mask")
ALL = {
    "sd": (pipelines.stable_diffusion, PLAIN, {"guidance_scale": 3.0}),
    "sdxl": (pipelines.stable_diffusion_xl, POOLED, {}),
    "sd3": (pipelines.stable_diffusion_3, POOLED, {}),
    "flux": (pipelines.flux, ("prompt_embeds", "pooled_prompt_embeds"), SMALL),
    "flux-2": (pipelines.flux_2, ("prompt_embeds",), SMALL),
    "flux-2-klein": (pipelines.flux_2_klein, PLAIN, SMALL | {"guidance_scale": 3.0}),
    "qwen": (pipelines.qwen_image, TOLD, SMALL),
    "pixart": (pipelines.pixart, MASKED, SMALL | {"use_resolution_binning": False}),
    "sana": (pipelines.sana, MASKED, {"height": 32, "width": 32, "use_resolution_binning": False}),
    "dit": (pipelines.dit, None, {"guidance_scale": 3.0}),
    "ltx": (pipelines.ltx, MASKED, {"height": 32, "width": 32, "num_frames": 9}),
    "wan": (pipelines.wan, PLAIN, SMALL | {"num_frames": 5}),
}
SOLVERS = {
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False, **BETAS),
    "ddpm": lambda: diffusers.DDPMScheduler(clip_sample=False, **BETAS),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**BETAS),
    "euler-v": lambda: diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **BETAS),
    "ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**BETAS),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**BETAS),
    "sde-dpm++": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **BETAS),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**BETAS),
    "pndm": lambda: diffusers.PNDMScheduler(skip_prk_steps=True, **BETAS),  # of Stable Diffusion 1.5
    "pndm-v": lambda: diffusers.PNDMScheduler(skip_prk_steps=True, prediction_type="v_prediction", **BETAS),
    "heun": lambda: diffusers.HeunDiscreteScheduler(**BETAS),
    "heun-karras": lambda: diffusers.HeunDiscreteScheduler(use_karras_sigmas=True, **BETAS),
    "dpm++3": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=3, use_karras_sigmas=True, **BETAS),
    "deis": lambda: diffusers.DEISMultistepScheduler(**BETAS),
    "lms": lambda: diffusers.LMSDiscreteScheduler(**BETAS),
    "tcd": lambda: diffusers.TCDScheduler(**BETAS),
    "lcm": lambda: diffusers.LCMScheduler(**BETAS),
}
STOCHASTIC = {"ddpm", "ancestral", "sde-dpm++", "lcm"}


def rows_of(names):
    return [3, 5] if names is None else [embeddings(number, *names) for number in (1, 2)]


def begun(model, rows):
    """Noisy states of two problems, and their streams."""
    problems = redraft.prompts(model, rows)
    streams = Streams.root(0, problems.ids)
    state = problems.state()
    return model.process.prior(state, state.free, streams.fold("prior")), streams.fold("initial")


def own_call(pipeline, rows, latents, options, steps=4):
    """Pictures of the pipeline's own call for the same latents."""
    if isinstance(rows[0], int):
        with Draws(lambda shape: latents, "the pipeline"):
            return pipeline(rows, num_inference_steps=steps, output_type="pt", return_dict=False, **options)[0]
    cond = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    takes = "negative_prompt" in inspect.signature(type(pipeline).__call__).parameters
    nothing = {"negative_prompt": None} if "negative_prompt_embeds" in cond and takes else {}
    options = options | nothing | {"num_inference_steps": steps, "output_type": "pt", "return_dict": False}
    return pipeline(**cond, latents=latents.clone(), **options)[0]


def close(one, other, tolerance=1e-4):
    largest = other.abs().max().item()
    torch.testing.assert_close(one, other, atol=tolerance * max(largest, 1), rtol=0)


def solved(name):
    """Stable Diffusion's model with another solver."""
    pipeline = made(pipelines.stable_diffusion, SOLVERS[name]())
    return redraft.load_model(pipeline, example=embeddings(0, *PLAIN), guidance_scale=3.0)


@pytest.mark.parametrize("name", ALL)
def test_a_walk_is_the_pipelines_own_call(name):
    make, names, options = ALL[name]
    pipeline, rows = made(make), rows_of(names)
    before = torch.get_rng_state()
    model = redraft.load_model(pipeline, example=rows[0], **options)
    noisy, streams = begun(model, rows)
    rows_seen = []
    net = model.net
    hook = net.register_forward_pre_hook(
        lambda module, args, kwargs: rows_seen.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    clean = sample(Scheduled(4), model, noisy, streams)
    hook.remove()
    assert sum(rows_seen) == 2 * 4 * model.nfe_per_row
    assert model.nfe_per_row == (1 if name in ("flux", "flux-2") else 2)
    pictures = model.decode(clean.x)
    assert torch.equal(torch.get_rng_state(), before)
    assert (pictures.min() >= 0) & (pictures.max() <= 1)
    close(pictures, own_call(pipeline, rows, noisy.x[:, 0], options))
    assert not isinstance(pipeline.scheduler, redraft.models.probe.StandIn)


@pytest.mark.parametrize("name", ALL)
def test_a_row_alone_and_a_walk_that_stopped_end_alike(name):
    make, names, options = ALL[name]
    rows, sampler = rows_of(names), Scheduled(4)
    model = redraft.load_model(made(make), example=rows[0], **options)
    noisy, streams = begun(model, rows)
    whole = sample(sampler, model, noisy, streams).x
    close(sample(sampler, model, noisy[1:], streams[1:]).x, whole[1:])
    walk = sampler.init(model, noisy, streams)
    for _ in range(2):
        walk = sampler.step(model, walk, streams)
    swap = torch.tensor([1, 0])
    walk = walk[swap]
    for _ in range(2):
        walk = sampler.step(model, walk, streams[swap])
    close(walk.state.x, whole[swap])
    up = sampler.rewind(model, walk, 0.9, streams)
    assert (up.state.t >= 0.9).all()
    assert sampler.step(model, up, streams).state.x.isfinite().all()


@pytest.mark.parametrize("name", SOLVERS)
def test_rows_stop_resume_and_change_places_with_their_solvers_history(name):
    model, sampler = solved(name), Scheduled(5)
    noisy, streams = begun(model, rows_of(PLAIN))
    whole = sample(sampler, model, noisy, streams).x
    walk = sampler.init(model, noisy, streams)
    ahead = torch.tensor([False, True])
    for _ in range(2):  # the second row runs ahead, so that one batch holds rows at different steps
        walk = walk.put(ahead, advance(sampler, model, walk[ahead], streams[ahead]))
    walk, streams = walk[torch.tensor([1, 0, 1])], streams[torch.tensor([1, 0, 1])]
    while not walk.done.all():
        walk = advance(sampler, model, walk, streams)
    close(walk.state.x, whole[[1, 0, 1]])
    alone = sample(sampler, model, noisy[1:], streams[:1]).x
    close(alone, whole[1:])


@pytest.mark.parametrize("name", sorted(set(SOLVERS) - STOCHASTIC))
def test_deterministic_solvers_are_the_pipelines_own(name):
    model = solved(name)
    noisy, streams = begun(model, rows_of(PLAIN))
    clean = sample(Scheduled(5), model, noisy, streams)
    expected = own_call(model.pipeline, rows_of(PLAIN), noisy.x[:, 0], model.options, steps=5)
    close(model.decode(clean.x), expected)
    assert torch.equal(sample(Scheduled(5), model, noisy, streams.fold(1)).x, clean.x)


@pytest.mark.parametrize(("name", "calls"), [("pndm", 7), ("heun", 11), ("dpm++", 6)])
@pytest.mark.parametrize("begin", range(6))
def test_a_solver_begins_anew_on_its_way_and_costs_what_it_says(name, calls, begin):
    model, sampler, one = solved(name), Scheduled(6), torch.tensor([1, 0])
    noisy, streams = begun(model, rows_of(PLAIN))
    high = float(model.schedule(6).grid[begin])
    up = sampler.rewind(model, sampler.arrived(model, noisy.to(noisy.x, 0 * noisy.t)), high, streams)
    assert up.step.tolist() == [begin, begin]
    seen = []
    hook = model.net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    first = up = advance(sampler, model, up, streams)
    while not up.done.all():
        up = advance(sampler, model, up, streams)
    hook.remove()
    foretold = sampler.between(model, one, high).tolist()
    assert sum(seen) == 2 * model.nfe_per_row * foretold[0]
    assert foretold == [calls - {"heun": 2 * begin, "pndm": begin + (begin > 0)}.get(name, begin), 0]
    assert up.state.x.isfinite().all()
    assert sampler.between(model, one, 1.0, high)[0] + foretold[0] == calls
    assert (first.state.t[:, 0] == model.schedule(6).grid[begin + 1]).all()


def test_pndm_begins_anew_with_a_plain_step_and_then_one_of_second_order():
    model, sampler = solved("pndm"), Scheduled(6)
    noisy, streams = begun(model, rows_of(PLAIN))
    level = float(model.schedule(6).grid[2])
    walk = sampler.init(model, noisy.to(noisy.x, torch.full_like(noisy.t, level)), streams)
    bars = [model.pipeline.scheduler.alphas_cumprod[k] for k in model.schedule(6).timesteps[[3, 4, 5]]]
    noises = []
    for now, after in zip(bars, bars[1:], strict=False):
        noises.append(model.output(walk.state, model.predict(walk.state)))
        noise = noises[0] if len(noises) == 1 else (3 * noises[1] - noises[0]) / 2
        clean = (walk.state.x - (1 - now).sqrt() * noise) / now.sqrt()
        walk = sampler.step(model, walk, streams)
        close(walk.state.x, after.sqrt() * clean + (1 - after).sqrt() * noise)


def test_heun_s_steps_of_a_flow_are_the_pipelines_own():
    pipeline = made(pipelines.stable_diffusion_3)
    pipeline.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    model = redraft.load_model(pipeline, example=embeddings(0, *POOLED))
    noisy, streams = begun(model, rows_of(POOLED))
    clean = sample(Scheduled(4), model, noisy, streams)
    close(model.decode(clean.x), own_call(pipeline, rows_of(POOLED), noisy.x[:, 0], {}))
    assert Scheduled(4).between(model, torch.tensor([1])).tolist() == [7]


@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_noise_of_a_solver_follows_the_streams(name):
    model = solved(name)
    noisy, streams = begun(model, rows_of(PLAIN))
    before = torch.get_rng_state()
    first = sample(Scheduled(3), model, noisy, streams).x
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(sample(Scheduled(3), model, noisy, streams).x, first)
    assert not torch.allclose(sample(Scheduled(3), model, noisy, streams.fold(1)).x, first)


def test_stochastic_flow_follows_the_streams():
    names = ALL["flux"][1]
    model = redraft.load_model(made(pipelines.flux, stochastic_sampling=True), example=embeddings(0, *names), **SMALL)
    noisy, streams = begun(model, rows_of(names))
    first = sample(Scheduled(3), model, noisy, streams).x
    assert torch.equal(sample(Scheduled(3), model, noisy, streams).x, first)
    assert not torch.allclose(sample(Scheduled(3), model, noisy, streams.fold(1)).x, first)


@pytest.mark.parametrize("name", ["euler", "euler-v", "dpm++"])
def test_the_output_is_that_of_the_prediction(name):
    model = solved(name)
    noisy, streams = begun(model, rows_of(PLAIN))
    walk = Scheduled(4).init(model, noisy, streams)
    walk = Scheduled(4).step(model, walk, streams)
    raw = model._output(walk.state, model._timestep(float(walk.state.t[0, 0])))
    close(model.output(walk.state, model.predict(walk.state)), raw)


@pytest.mark.parametrize("name", ["ddim", "unipc", "pndm", "heun"])
def test_a_walk_is_taken_up_at_the_level_above(name):
    model, sampler = solved(name), Scheduled(6)
    noisy, streams = begun(model, rows_of(PLAIN))
    clean = sample(sampler, model, noisy, streams)
    levels = model.schedule(6).grid
    up = sampler.rewind(model, sampler.arrived(model, clean), 0.7, streams.fold("up"))
    assert up.state.t[0, 0] == levels[levels >= 0.7].min()
    assert up.step.tolist() == [int((levels >= 0.7).sum()) - 1] * 2
    t = up.state.t[0, 0]
    noise = (up.state.x - (1 - t**2).sqrt() * clean.x) / t
    assert 0.8 < noise.std() < 1.2
    assert (sampler.init(model, up.state, streams).step == up.step).all()
    while not up.done.all():
        up = advance(sampler, model, up, streams)
    assert up.state.x.isfinite().all()


def test_methods_search_and_every_row_is_counted():
    model = solved("dpm++")
    problems = redraft.prompts(model, rows_of(PLAIN))
    sampler, drawing, rows_seen, looked = Scheduled(3), Scheduled(3, stochasticity=1.0), [], []

    def brightness(samples, problems):
        looked.append(len(samples))
        return samples.flatten(1).mean(1)

    for method in (
        redraft.BestOfN(3, sampler=sampler),
        redraft.IterRef(levels=(0.9, 0.0), moves=1, candidates=2, sampler=sampler),
        redraft.SVDD(sampler=drawing),
        redraft.Beam(sampler=drawing),
        redraft.FK(sampler=drawing),
        redraft.ParticleGibbs(2, 3, sampler=drawing),
        redraft.ZeroOrder(sampler=sampler),
        redraft.Paths(level=0.8, forward=0.1, backward=0.3, sampler=sampler),
        redraft.DraftThenVerify(3, 1, draft=Scheduled(2), sampler=sampler),
        redraft.BestOfN(2, sampler=redraft.Parallel(2)),
    ):
        rows_seen.clear()
        hook = model.net.register_forward_pre_hook(lambda module, args: rows_seen.append(len(args[0])))
        result = redraft.run(method, model, problems, verifier=brightness, progress=False)
        hook.remove()
        assert result.samples.shape == (2, 3, 16, 16)
        assert int(result.ledger.nfe.sum()) == sum(rows_seen)
    single = redraft.run(redraft.BestOfN(3, sampler=sampler), model, problems, verifier=brightness, progress=False)
    alone = redraft.run(redraft.BestOfN(3, sampler=sampler), model, problems[1:], verifier=brightness, progress=False)
    close(alone.samples, single.samples[1:])


def test_a_budget_is_a_ceiling_under_guidance():
    model = solved("ddim")
    problems = redraft.prompts(model, rows_of(PLAIN))
    method = redraft.BestOfN(4, sampler=Scheduled(3))
    verifier = lambda samples, problems: samples.flatten(1).mean(1)  # noqa: E731
    result = redraft.run(method, model, problems, verifier=verifier, budget=redraft.Budget(nfe=13), progress=False)
    assert result.ledger.nfe.tolist() == [12, 12]  # 2 samples of 3 steps, each step twice
    with pytest.raises(RedraftError, match="too small for one draft of problem 0, which takes 6 NFE"):
        redraft.run(method, model, problems, verifier=verifier, budget=redraft.Budget(nfe=5), progress=False)


def test_the_mark_tells_options_and_schedulers_apart():
    pipeline, example = made(pipelines.stable_diffusion), embeddings(0, *PLAIN)
    models = [redraft.load_model(pipeline, example=example, guidance_scale=scale) for scale in (3.0, 4.0)]
    models.append(solved("euler"))
    assert len({model.mark for model in models}) == 3
    assert solved("euler").mark == models[2].mark


def test_pictures_are_decoded_only_where_someone_looks(monkeypatch):
    model = solved("ddim")
    problems = redraft.prompts(model, rows_of(PLAIN))
    decoded, decode = [], type(model).decode
    monkeypatch.setattr(type(model), "decode", lambda self, x: decoded.append(len(x)) or decode(self, x))
    redraft.run(redraft.Generate(sampler=Scheduled(2)), model, problems, progress=False)
    assert decoded == [2]  # the result


# ---- prompts, folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pipelines.with_encoder(tmp_path_factory.mktemp("sd"))


def test_prompts_are_encoded_once_by_the_pipeline(folder, monkeypatch):
    model = redraft.load_model(str(folder), device="cpu", guidance_scale=2.0, negative_prompt="bad")
    problems = redraft.prompts(model, ["a cat", "bad"])
    assert (problems.x.shape, problems.facts["prompt"]) == ((2, 1, 4, 8, 8), ["a cat", "bad"])
    encode, asked = model.pipeline.encode_prompt, []
    text, negative = encode(["a cat", "bad"], "cpu", 1, True, ["bad", "bad"])
    assert torch.equal(problems.cond["prompt_embeds"], text)
    assert torch.equal(problems.cond["negative_prompt_embeds"], negative)
    encoder = model.pipeline.text_encoder
    hook = encoder.register_forward_pre_hook(lambda *_: asked.append(1))
    result = redraft.run(redraft.Generate(sampler=Scheduled(3)), model, problems, progress=False)
    hook.remove()
    assert not asked
    streams = Streams.root(0, problems.ids)
    state = problems.state()
    noise = model.process.prior(state, state.free, streams.fold("prior")).x[:, 0]
    model.pipeline.set_progress_bar_config(disable=True)
    expected = model.pipeline(
        ["a cat", "bad"], negative_prompt=["bad"] * 2, guidance_scale=2.0, latents=noise, num_inference_steps=3,
        output_type="pt", return_dict=False,
    )[0]  # fmt: skip
    close(result.samples, expected)


def test_text_encoders_wait_on_the_cpu_if_asked(folder, monkeypatch):
    moves, move = [], redraft.models.probe.move
    monkeypatch.setattr(redraft.models.probe, "move", lambda nets, device: moves.append((list(nets), str(device))))
    model = redraft.load_model(str(folder), device="cpu", offload=True)
    there_and_back = [(["text_encoder"], "cpu")] * 2
    assert moves == [(["text_encoder"], "cpu"), *there_and_back]  # at loading, then for the example
    problems = redraft.prompts(model, ["a cat", "bad"])
    assert moves[3:] == there_and_back
    plain = redraft.prompts(redraft.load_model(str(folder), device="cpu"), ["a cat", "bad"])
    assert torch.equal(problems.cond["prompt_embeds"], plain.cond["prompt_embeds"])
    assert len(moves) == 5
    hooked = torch.nn.Linear(1, 1)
    hooked._hf_hook = None
    move({"text_encoder": hooked}, "meta")  # what accelerate moves is left to it
    assert hooked.weight.device.type == "cpu"


class Encoder(torch.nn.Linear):
    dtype = torch.float32

    def __init__(self, device="cpu"):
        super().__init__(1, 1, device=device)
        self.device = torch.device(device)


def test_text_encoders_elsewhere_disturb_no_evaluation():
    pipeline = made(pipelines.pixart)
    make, names, options = ALL["pixart"]
    expected = redraft.load_model(made(make), example=rows_of(names)[0], **options)
    noisy, streams = begun(expected, rows_of(names))
    pipeline.text_encoder = Encoder("meta")  # the first of the pipeline's parts
    assert pipeline.device.type == "meta"
    model = redraft.load_model(pipeline, example=rows_of(names)[0], **options)
    walked = [sample(Scheduled(2), one, noisy, streams).x for one in (model, expected)]
    assert torch.equal(*walked)
    assert torch.equal(model.decode(walked[0]), expected.decode(walked[0]))
    assert pipeline.text_encoder is not None


def test_dropped_text_encoders_give_their_memory_back(folder):
    model = redraft.load_model(str(folder), device="cpu")
    problems = redraft.prompts(model, ["a cat", "bad"])
    method = redraft.Generate(sampler=Scheduled(2))
    before = redraft.run(method, model, problems, progress=False)
    encoder = weakref.ref(model.pipeline.text_encoder)
    model.drop_encoders()
    gc.collect()
    assert encoder() is None
    assert torch.equal(redraft.run(method, model, problems, progress=False).samples, before.samples)
    with pytest.raises(RedraftError, match="has no text encoder: give dicts of embeddings in place of texts"):
        redraft.prompts(model, ["a cat"])
    rows = [{name: value[i : i + 1] for name, value in problems.cond.items()} for i in range(2)]
    assert torch.equal(redraft.prompts(model, rows).cond["prompt_embeds"], problems.cond["prompt_embeds"])


def test_negative_prompts_of_a_second_encoding_are_not_lost():
    pipeline = made(pipelines.qwen_image)
    lengths = []

    def encode_prompt(prompt=None, prompt_embeds=None, prompt_embeds_mask=None, **others):
        if prompt_embeds is None:
            lengths.append(len(prompt))
            value = sum(len(text) for text in prompt)
            return torch.full((len(prompt), 3, 8), float(value)), None
        return prompt_embeds, prompt_embeds_mask

    pipeline.encode_prompt = encode_prompt
    pipeline.text_encoder = Encoder()
    model = redraft.load_model(pipeline, negative_prompt="bad", **SMALL)
    assert model.nfe_per_row == 2
    problems = redraft.prompts(model, ["a cat", "a dog"])
    assert sorted(problems.cond) == sorted(TOLD)
    assert (problems.cond["prompt_embeds"] == 10).all()
    assert (problems.cond["negative_prompt_embeds"] == 6).all()
    assert (problems.cond["prompt_embeds_mask"] == 1).all()
    assert lengths == [1, 1, 2, 2]


# ---- memory


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_memory_that_runs_out_halves_the_batch_and_changes_no_result(error, monkeypatch):
    make, names, options = ALL["flux"]
    model = redraft.load_model(made(make), example=embeddings(0, *names), **options)
    problems = redraft.prompts(model, [embeddings(number, *names) for number in range(7)])
    method, asked = redraft.Generate(sampler=Scheduled(2)), {"net": [], "vae": []}
    expected = redraft.run(method, model, problems, progress=False)

    def limited(forward, calls, most):
        def called(x=None, hidden_states=None, **others):
            rows = len(hidden_states if x is None else x)
            calls.append(rows)
            if rows > most:
                raise error
            return forward(hidden_states=hidden_states, **others) if x is None else forward(x, **others)

        return called

    vae = model.pipeline.vae
    monkeypatch.setattr(model.net, "forward", limited(model.net.forward, asked["net"], 3))
    monkeypatch.setattr(vae, "decode", limited(vae.decode, asked["vae"], 1))
    result = redraft.run(method, model, problems, progress=False)
    close(result.samples, expected.samples)
    assert asked == {"net": [7, 4, 2, 2, 2, 1, 2, 2, 2, 1], "vae": [7, 4, 2, *[1] * 7]}
    assert result.ledger.nfe.tolist() == expected.ledger.nfe.tolist() == [2] * 7


def test_a_row_too_large_for_memory_is_one_sentence(monkeypatch):
    model = solved("ddim")
    problems = redraft.prompts(model, rows_of(PLAIN))

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(model.net, "forward", full)
    with pytest.raises(RedraftError, match=r"one row of .*Pipeline does not fit into memory \(CUDA out"):
        redraft.run(redraft.Generate(sampler=Scheduled(2)), model, problems, progress=False)


# ---- what is refused


def test_a_method_without_a_fitting_sampler_says_which_one_to_give():
    model = solved("ddim")
    problems = redraft.prompts(model, rows_of(PLAIN))
    for method in (redraft.Generate(redraft.Preset()), redraft.Generate(redraft.Sequential())):
        with pytest.raises(RedraftError, match=r"give the method sampler=redraft\.Scheduled\(30\)"):
            redraft.run(method, model, problems, progress=False)
    tokens = redraft.load_model("sudoku-tokens", device="cpu")
    given = redraft.load_task("sudoku-tokens").problems(1)
    with pytest.raises(RedraftError, match=r"offers 'schedule'.*give the method sampler=redraft\.Preset\(\)"):
        redraft.run(redraft.Generate(sampler=Scheduled(2)), tokens, given, progress=False)


def test_a_verifier_on_another_device_is_told_where_to_go():
    model = solved("ddim")
    problems = redraft.prompts(model, rows_of(PLAIN))
    linear = torch.nn.Linear(3 * 16 * 16, 1, device="meta")
    method = redraft.BestOfN(2, sampler=Scheduled(2))
    with pytest.raises(RedraftError, match="move the verifier to the samples' device, cpu"):
        redraft.run(method, model, problems, verifier=lambda x, _: linear(x.flatten(1))[:, 0], progress=False)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompt_embeds": torch.zeros(1, 5, 8)}, "is conditioned on negative_prompt_embeds, prompt_embeds, not on"),
        ({name: torch.zeros(1, 5, 9) for name in PLAIN}, r"of shape \(1, 5, 9\), where one row has \(1, 5, 8\)"),
        ({name: torch.zeros(5, 8) for name in PLAIN}, r"of shape \(5, 8\), where one row has \(1, 5, 8\)"),
        ({name: [torch.zeros(5, 8)] for name in PLAIN}, "come in lists: such pipelines are not supported"),
        ({"prompt_embed": torch.zeros(1, 5, 8)}, "is conditioned on negative_prompt_embeds"),
    ],
)
def test_wrong_embeddings_are_refused_when_problems_are_made(wrong, sentence):
    model = solved("ddim")
    with pytest.raises(RedraftError, match=sentence):
        redraft.prompts(model, [wrong])
    longer = {name: torch.zeros(1, 9, 8) for name in PLAIN}
    assert redraft.prompts(model, [longer]).cond["prompt_embeds"].shape == (1, 9, 8)


def test_embeddings_in_lists_are_refused_by_name():
    with pytest.raises(RedraftError, match="'ZImagePipeline' come in lists"):
        redraft.load_model(made(pipelines.z_image), example={"prompt_embeds": [torch.zeros(5, 8)]}, **SMALL)
    pipeline = made(pipelines.z_image)
    pipeline.text_encoder = Encoder()
    pipeline.encode_prompt = lambda prompt=None, **others: ([torch.zeros(5, 8)], [torch.zeros(5, 8)])
    with pytest.raises(RedraftError, match="keeps embeddings of different lengths in lists: it is not supported"):
        redraft.load_model(pipeline, **SMALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy's, inside KDPM2
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("PNDMScheduler", r"takes 13 .* for 4 steps.*PNDMScheduler.*skip_prk_steps=True"),
        ("KDPM2DiscreteScheduler", r"takes 7 .*: set pipeline.scheduler = DPMSolverMultistepScheduler"),
        ("EDMEulerScheduler", "does not say what noise it was trained on"),
        ("IPNDMScheduler", "has prediction type None; supported are epsilon"),
    ],
)
def test_a_solver_that_is_not_known_is_refused_and_another_named(kind, sentence):
    pipeline = made(pipelines.stable_diffusion)
    pipeline.scheduler = getattr(diffusers, kind)()
    with pytest.raises(RedraftError, match=sentence):
        redraft.load_model(pipeline, example=embeddings(0, *PLAIN))


def test_a_history_that_is_no_rows_is_refused(monkeypatch):
    model = solved("ddim")
    noisy, streams = begun(model, rows_of(PLAIN))
    step = diffusers.DDIMScheduler.step

    def odd(self, *args, **kwargs):
        self.kept = {"a": 1}
        return step(self, *args, **kwargs)

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", odd)
    with pytest.raises(RedraftError, match="DDIMScheduler.kept is a dict, which cannot be split by rows"):
        sample(Scheduled(2), model, noisy, streams)


def test_bad_pipelines_and_arguments_are_one_sentence():
    with pytest.raises(RedraftError, match="a value of type object is no model: give a name, folder"):
        redraft.load_model(object())
    pipeline = made(pipelines.stable_diffusion)
    with pytest.raises(RedraftError, match="no text encoder: give load_model"):
        redraft.load_model(pipeline)
    with pytest.raises(RedraftError, match="unknown option 'guidance_scal'; did you mean 'guidance_scale'"):
        redraft.load_model(pipeline, example=embeddings(0, *PLAIN), guidance_scal=1)
    with pytest.raises(RedraftError, match="cannot be called so: `height` and `width`"):
        redraft.load_model(pipeline, example=embeddings(0, *PLAIN), height=9, width=9)
    model = redraft.load_model(pipeline, example=embeddings(0, *PLAIN))
    with pytest.raises(RedraftError, match="takes texts, class numbers, or dicts"):
        redraft.prompts(model, ["a cat", 3])
    with pytest.raises(RedraftError, match="need the same names and lengths, one row each"):
        redraft.prompts(model, [embeddings(1, *PLAIN), embeddings(2, "prompt_embeds")])
    with pytest.raises(RedraftError, match="cannot be called so"):
        redraft.load_model(pipeline, example={name: torch.zeros(1, 5, 9) for name in PLAIN})
    with pytest.raises(RedraftError, match="cannot turn pictures back"):
        model.encode(torch.zeros(1, 3, 16, 16))


def test_a_class_that_the_network_has_not_is_one_sentence():
    model = redraft.load_model(made(pipelines.dit))
    noisy, streams = begun(model, [3, 99999])
    with pytest.raises(RedraftError, match="cannot be called so: index out of range"):
        sample(Scheduled(1), model, noisy, streams)


def test_a_pipeline_without_latents_has_no_known_prior():
    class Other(diffusers.StableDiffusionPipeline):
        def __call__(self, prompt_embeds, negative_prompt_embeds, num_inference_steps=50, return_dict=True):
            return super().__call__(
                prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
                num_inference_steps=num_inference_steps, return_dict=return_dict,
            )  # fmt: skip

    parts = made(pipelines.stable_diffusion).components
    with pytest.raises(RedraftError, match="takes no latents and no classes: it has no known prior"):
        redraft.load_model(Other(**parts, requires_safety_checker=False), example=embeddings(0, *PLAIN))


def test_another_models_sampler_is_refused():
    model = redraft.load_model("sudoku", device="cpu")
    state = State(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), torch.arange(1))
    with pytest.raises(RedraftError, match="needs a model that offers 'schedule'"):
        Scheduled(2).init(model, state, Streams.root(0, torch.arange(1)))


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_a_random_step_is_that_of_ddim_for_the_same_noise(eta):
    """`DDIMScheduler.step` with eta and given noise, step by step."""
    model = solved("ddim")
    noisy, streams = begun(model, rows_of(PLAIN))
    sampler = Scheduled(5, stochasticity=eta)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **BETAS)
    scheduler.set_timesteps(5)
    walk = sampler.init(model, noisy, streams)
    for k, timestep in enumerate(scheduler.timesteps):
        output = model.output(walk.state, model.predict(walk.state))
        noise = streams.fold("scheduled").fold(k).normal(tuple(noisy.x.shape[1:]))
        theirs = scheduler.step(output, timestep, walk.state.x, eta=eta, variance_noise=noise).prev_sample
        walk = sampler.step(model, walk, streams)
        if k < 4:  # DDIM's last step ends at the first level of training, ours at 0
            close(walk.state.x, theirs)
    assert walk.done.all()


@pytest.mark.parametrize("name", ALL)
def test_every_pipeline_has_random_steps(name):
    make, names, options = ALL[name]
    given = {} if names is None else {"example": embeddings(0, *names)}
    model = redraft.load_model(made(make), **given, **options)
    noisy, streams = begun(model, rows_of(names))
    sampler = Scheduled(4, stochasticity=1.0)
    clean = sample(sampler, model, noisy, streams).x
    assert model.decode(clean).isfinite().all()
    close(sample(sampler, model, noisy[1:], streams[1:]).x, clean[1:], 1e-3)
    assert not torch.allclose(sample(sampler, model, noisy, streams.fold(1)).x, clean)
    assert torch.equal(sample(Scheduled(4, stochasticity=0.0), model, noisy, streams).x,
                       sample(Scheduled(4), model, noisy, streams.fold(1)).x)  # fmt: skip
