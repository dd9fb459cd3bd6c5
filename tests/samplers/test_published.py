"""Presets in blocks beside transcriptions of the published loops: Fast-dLLM, entropy bounds, LLaDA2 and LLaDA2.1.

At temperature 0 every token is compared, on networks of the models' own calls; above it the law after a step, on fixed
distributions small enough that all draws are enumerated.
"""

from dataclasses import replace
from itertools import product

import networks
import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p
from networks import MASK, VOCABULARY
from tokens import after_one_step

import redraft
from redraft import Generate, preset
from redraft.core.task import Problems
from redraft.models.adapters import text
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Confidence

END = 3


def network(kind, sharp, seed, end=-2.0):
    """A tiny network that is sure of some tokens, never of a mask, and may end its text."""
    net = kind()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for weight in (net.embed.weight, net.mix.weight, net.head.weight, net.place.weight):
            weight.copy_(torch.randn_like(weight) * 0.6)
        net.head.weight.mul_(sharp)
        net.head.bias.zero_()
        net.head.bias[MASK], net.head.bias[END] = -1e4, end
    return net.requires_grad_(False).eval()


def problem(prompt, new):
    """One row: a prompt and masks."""
    x = torch.cat([torch.arange(prompt).remainder(MASK - END - 1) + END + 1, torch.full((new,), MASK)])[None]
    return Problems(torch.arange(1), x, x != MASK)


def sampled(sampler, model, given):
    """Tokens (R,) and evaluations."""
    result = redraft.run(Generate(sampler), model, given, progress=False)
    assert (result.ledger.nfe <= Generate(sampler).nfe(model, redraft.core.state.Draft(given.state()))).all()
    return result.samples[0], int(result.ledger.nfe)


def text_of(tokens, prompt):
    """New tokens up to the first end, with it."""
    new = tokens[prompt:].tolist()
    return new[: new.index(END) + 1] if END in new else new


# --- Fast-dLLM, llada/generate.py: one block after another, until it has no mask


def within_threshold(sure, confidence):
    """How many of the confidences, the highest first, are revealed."""
    return max(1, sum(c >= confidence for c in sure))


def within_factor(sure, factor):
    fitting = [n for n, c in enumerate(sure, 1) if (n + 1) * (1 - c) < factor]
    return max([1, *fitting])


def within_factor_as_released(sure, factor):
    """The prefix rule of the code, with its last token: one too many where it alone is out of the bound."""
    bounds = [-1.0] + [1 - factor / (n + 1) for n in range(2, len(sure) + 1)]
    place = next((i for i, (c, bound) in enumerate(zip(sure, bounds, strict=True)) if c < bound), len(sure) - 1)
    return place + 1 if place in (0, len(sure) - 1) else place


def fast_dllm(net, x, prompt, block, number_of, setting):
    x, calls = x.clone(), 0
    for start in range(prompt, len(x), block):
        while (x[start : start + block] == MASK).any():
            calls += 1
            p, token = net(input_ids=x[None]).logits[0].double().softmax(-1).max(-1)
            masked = (x == MASK) & (torch.arange(len(x)) < start + block)
            order = p.masked_fill(~masked, -1).argsort(descending=True)[: int(masked.sum())]
            chosen = order[: number_of(p[order].tolist(), setting)]
            x[chosen] = token[chosen]
    return x, calls


@pytest.mark.parametrize("sharp", [3.0])
@pytest.mark.parametrize(("prompt", "new", "block"), [(5, 16, 8), (3, 20, 32)])
@pytest.mark.parametrize("settings", [{}, {"confidence": 0.6}, {"factor": 1.0}, {"factor": 0.4}])
def test_threshold_is_fast_dllm_s_loop(sharp, prompt, new, block, settings):
    rule = (
        (within_factor, settings["factor"])
        if "factor" in settings
        else (within_threshold, settings.get("confidence", 0.9))
    )
    several = False
    for seed in range(3):
        net, given = network(networks.Llada, sharp, seed), problem(prompt, new)
        expected, calls = fast_dllm(net, given.x[0], prompt, block, *rule)
        found = sampled(preset("threshold", block=block, **settings), text.llada(net), given)
        assert torch.equal(found[0], expected)
        assert found[1] == calls
        several |= calls < new
    assert several


def test_threshold_has_the_published_defaults():
    assert preset("threshold") == preset("threshold", steps=None, draw=Draw(0), confidence=0.9, block=32, factor=None)


def test_the_factor_rule_differs_from_the_released_code_in_the_last_token_alone():
    """Where all but the least sure are within the bound the code reveals that one too; nowhere else do they differ."""
    generator, differ = torch.Generator().manual_seed(0), 0
    for _ in range(2000):
        size = int(torch.randint(1, 7, (1,), generator=generator))
        sure = (1 - torch.rand(size, generator=generator) ** 2).sort(descending=True).values.tolist()
        paper, released = within_factor(sure, 1.0), within_factor_as_released(sure, 1.0)
        assert paper == released or (paper, released) == (size - 1, size)
        differ += paper != released
    assert 0 < differ < 1000


# --- entropy bounds (Ben-Hamu et al. 2025), by the entropies of the masks


def entropy_bound(net, x, bound):
    x, calls = x.clone(), 0
    while (x == MASK).any():
        calls += 1
        p = net(input_ids=x[None]).logits[0].double().softmax(-1)
        entropy = torch.special.entr(p).sum(-1).masked_fill(x != MASK, torch.inf)
        order = entropy.argsort()[: int((x == MASK).sum())]
        together = entropy[order].cumsum(0) - entropy[order]  # of all but the last, the largest
        chosen = order[: max(1, int((together <= bound).sum()))]
        x[chosen] = p.argmax(-1)[chosen]
    return x, calls


@pytest.mark.parametrize("bound", [0.0, 0.1, 1.0])
def test_entropy_bounded_is_the_published_rule(bound):
    for seed in range(4):
        net, given = network(networks.Llada, 2.0, seed), problem(4, 20)
        expected, calls = entropy_bound(net, given.x[0], bound)
        found = sampled(preset("entropy-bounded", bound=bound, draw=Draw(0)), text.llada(net), given)
        assert torch.equal(found[0], expected)
        assert found[1] == calls


# --- LLaDA2's and LLaDA2.1's generate: windows of whole blocks, the tail denoised and cut off


def windows(prompt, new, block):
    """The masked whole of the prompt's row and where its blocks to be written end."""
    whole = -(-(prompt + new) // block) * block
    x = torch.full((whole,), MASK)
    x[:prompt] = problem(prompt, 0).x[0]
    return x, range(prompt // block * block + block, whole + 1, block)


def seen(net, x, end, block):
    """Probabilities and tokens (block,) of the last block of a window."""
    place = torch.arange(end)
    allowed = place[:, None] // block >= place // block
    bias = torch.zeros(1, 1, end, end).masked_fill(~allowed, -torch.inf)
    logits = net(input_ids=x[None, :end], attention_mask=bias, position_ids=place[None]).logits[0, -block:]
    return logits.float().softmax(-1).max(-1)


def quota(block, steps, step):
    return block // steps + (step < block % steps)


def surest(p, masked, confidence, least):
    """Masks above the threshold, or as many of the surest as are due."""
    sure = masked & (p > confidence)
    if sure.sum() >= least:
        return sure
    chosen = p.masked_fill(~masked, -1).topk(min(least, int(masked.sum()))).indices
    return torch.zeros_like(masked).index_fill(0, chosen, True)


def ended(x, prompt):
    """Whether an end stands in the new text, and no mask before it."""
    new = x[prompt:]
    return bool((new == END).any()) and bool((new[: int((new == END).int().argmax())] != MASK).all())


def llada2(net, prompt, new, block=32, steps=32, confidence=0.95, early=True):
    (x, ends), calls = windows(prompt, new, block), 0
    for end in ends:
        part = x[end - block : end]
        for step in range(steps):
            masked = part == MASK
            if not masked.any():
                break
            calls += 1
            p, token = seen(net, x, end, block)
            chosen = surest(p, masked, confidence, quota(block, steps, step))
            part[chosen] = token[chosen]
            if early and (token[chosen] == END).any() and ended(x[:end], prompt):
                return x[: prompt + new], calls
        if (x[prompt:end] == END).any():
            break
    return x[: prompt + new], calls


def llada2_1(net, prompt, new, block=32, confidence=0.7, editing=0.5, most=16):
    (x, ends), calls, edits = windows(prompt, new, block), 0, 0
    for end in ends:
        part, given, after = x[end - block : end], torch.arange(end - block, end) < prompt, 0
        while True:
            masked = part == MASK
            after += not masked.any()
            if after > most:
                break
            calls += 1
            p, token = seen(net, x, end, block)
            chosen = surest(p, masked, confidence, 1) if masked.any() else masked
            change = ~masked & ~given & (p > editing) & (token != part)
            part[chosen | change] = token[chosen | change]
            edits += int(change.sum())
            if not masked.any() and not change.any():
                break
        if (x[prompt:end] == END).any():
            break
    return x[: prompt + new], calls, edits


SHAPES = [(8, 16, 8), (5, 12, 8), (6, 20, 32)]


@pytest.mark.parametrize(("prompt", "new", "block"), SHAPES)
@pytest.mark.parametrize("settings", [{}, {"confidence": 0.5}, {"steps": 3, "confidence": 0.99}])
def test_llada2_is_the_published_loop_up_to_the_end_of_its_text(prompt, new, block, settings):
    for seed in range(2):
        net = network(networks.Llada2, 1.5, seed)
        model = replace(text.llada2(net, block=block), convention=Convention(VOCABULARY, MASK, ends=(END,)))
        sampler = preset("llada2", block=block, **({"steps": block} | settings))
        found, nfe = sampled(sampler, model, problem(prompt, new))
        expected, calls = llada2(net, prompt, new, block, **({"steps": block} | settings))
        assert text_of(found, prompt) == text_of(expected, prompt)
        assert nfe <= calls


@pytest.mark.parametrize(("prompt", "new", "block"), SHAPES)
def test_llada2_without_ends_is_the_published_loop_in_every_token(prompt, new, block):
    for seed in range(2):
        net = network(networks.Llada2, 1.5, seed, end=-1e4)
        found, nfe = sampled(
            preset("llada2", block=block, steps=block), text.llada2(net, block=block), problem(prompt, new)
        )
        expected, calls = llada2(net, prompt, new, block, block)
        assert torch.equal(found, expected)
        assert nfe <= calls


def test_the_last_block_s_tail_makes_the_difference():
    """The control: without the tail, as for a network that does not say that it attends in blocks, tokens differ."""
    differ = 0
    for seed in range(8):
        net = network(networks.Llada2, 1.5, seed, end=-1e4)
        model = replace(text.llada2(net, block=16), block=None)
        found, _ = sampled(preset("llada2", block=16, steps=4), model, problem(5, 20))
        differ += not torch.equal(found, llada2(net, 5, 20, 16, 4)[0])
    assert differ


def test_llada2_has_the_published_defaults():
    assert preset("llada2") == preset("llada2", steps=32, draw=Draw(0), confidence=0.95, block=32)
    assert preset("llada2.1") == preset("llada2.1", steps=32, confidence=0.7, editing=0.5, block=32)
    assert preset("llada2.1").edit.steps == 16


@pytest.mark.parametrize(("prompt", "new", "block"), SHAPES)
@pytest.mark.parametrize("settings", [{}, {"confidence": 0.5, "editing": 0.0}, {"editing": 0.9}])
@pytest.mark.parametrize("end", [-2.0, -1e4])
def test_llada2_1_is_the_published_loop(prompt, new, block, settings, end):
    total = 0
    for seed in range(2):
        net = network(networks.Llada2, 1.5, seed, end)
        ends = (END,) if end == -2.0 else ()
        model = replace(text.llada2(net, block=block), convention=Convention(VOCABULARY, MASK, ends=ends))
        found, nfe = sampled(preset("llada2.1", block=block, **settings), model, problem(prompt, new))
        expected, calls, edits = llada2_1(net, prompt, new, block, **settings)
        assert text_of(found, prompt) == text_of(expected, prompt)
        assert nfe <= calls
        total += edits
    assert total or settings.get("editing") == 0.9


def test_an_early_end_costs_what_the_published_loop_costs():
    """An end early among 256 tokens: the rest is neither evaluated nor left masked."""
    net = network(networks.Llada2, 1.0, 0, end=1.0)
    net.place = torch.nn.Embedding(400, 8).requires_grad_(False)
    for seed in range(3):
        net.place.weight.copy_(torch.randn(400, 8, generator=torch.Generator().manual_seed(seed)) * 0.6)
        model = replace(text.llada2(net), convention=Convention(VOCABULARY, MASK, ends=(END,)))
        tokens, nfe = sampled(preset("llada2"), model, problem(32, 256))
        expected, calls = llada2(net, 32, 256)
        assert text_of(tokens, 32) == text_of(expected, 32)
        assert nfe <= calls < 100
        assert (tokens != MASK).all()


# --- the law of a step above temperature 0, by enumeration of all draws

P = torch.tensor([[0.9, 0.07, 0.03], [0.8, 0.15, 0.05], [0.91, 0.06, 0.03], [0.6, 0.29, 0.11]], dtype=torch.float64)
DRAWS = torch.tensor(list(product(range(3), repeat=4)))
PLACE = torch.arange(4)


def fixed():
    """A model of P in every context."""

    def forward(x, state):
        full = torch.cat([P.log(), torch.full((4, 1), -torch.inf)], 1)
        return full.expand(len(x), *full.shape).clone(), None

    return TokenModel("fixed", forward, Convention(4, 3), length=4)


def shaped(temperature, top_p=1.0):
    """P after temperature, and the words that top-p keeps, with the one that crosses it."""
    p = (P.log() / temperature).softmax(-1)
    ordered, index = p.sort(-1, descending=True)
    out = ordered.cumsum(-1) - ordered >= top_p
    p = p.masked_fill(torch.zeros_like(out).scatter(-1, index, out), 0)
    return p / p.sum(-1, keepdim=True)


def law_of(step, x, draw):
    """The law (256,) after a published `step` from `x` (4,): of each draw, with its probabilities."""
    drawn, raw = shaped(draw.temperature, draw.top_p or 1.0), P
    law = torch.zeros(256, dtype=torch.float64)
    for tokens in DRAWS:
        chance, own = drawn[PLACE, tokens], raw[PLACE, tokens]
        law[int(place_of(step(tokens, chance, own, x)[None]))] += chance.prod()
    return law


def place_of(x):
    return (x * 4 ** torch.arange(3, -1, -1)).sum(1)


def found_after(sampler, x, rows=4000):
    return torch.bincount(place_of(after_one_step(sampler, fixed(), x.expand(rows, 4), 0)), minlength=256)


def law_p(sampler, step, x):
    """That rows after a step have the published law; 0 where any is impossible."""
    counts, law = found_after(sampler, x), law_of(step, x, sampler.draw)
    if counts[law < 1e-12].any():
        return 0.0
    common = law > 1e-3
    counts, law = (torch.cat([v[common], v[~common].sum()[None]]) for v in (counts, law))
    return counts_p(counts[law > 1e-12], law[law > 1e-12]) if (law > 1e-12).sum() > 1 else 1.0


def llada2_step(tokens, shaped_p, own, x):
    chosen = surest(shaped_p, x == 3, 0.95, 1)
    return torch.where(chosen, tokens, x)


def llada2_1_step(tokens, shaped_p, own, x):
    chosen = surest(shaped_p, x == 3, 0.7, 1)
    return torch.where(chosen | ((x != 3) & (shaped_p > 0.5) & (tokens != x)), tokens, x)


def fast_dllm_step(tokens, shaped_p, own, x):
    order = own.masked_fill(x != 3, -1).argsort(descending=True, stable=True)
    chosen = order[: within_threshold(own[order][: int((x == 3).sum())].tolist(), 0.9 - 1e-9)]
    return torch.where(torch.isin(PLACE, chosen), tokens, x)


MASKS = torch.full((4,), 3)
SOME = torch.tensor([1, 3, 2, 3])


@pytest.mark.parametrize("draw", [Draw(0.5), Draw(1.0), Draw(0.7, 0.9)])
def test_llada2_s_law_is_that_of_the_published_step(draw):
    assert law_p(preset("llada2", block=4, steps=4, draw=draw), llada2_step, MASKS) > FALSE_ALARM


def test_llada2_s_law_by_the_network_s_own_probabilities_is_found_out():
    """The control: at temperature 0.5 three tokens pass the threshold after it, and none before it."""
    sampler = preset("llada2", block=4, steps=4, draw=Draw(0.5))
    raw = replace(sampler, rule=Rule(replace(sampler.rule.budget, shaped=False), Confidence()))
    assert law_p(raw, llada2_step, MASKS) < CERTAIN


@pytest.mark.parametrize("draw", [Draw(0.5), Draw(1.0), Draw(0.7, 0.9)])
@pytest.mark.parametrize("x", [MASKS, SOME])
def test_llada2_1_s_law_is_that_of_the_published_step(draw, x):
    sampler = preset("llada2.1", block=4, steps=4, draw=draw)
    assert law_p(sampler, llada2_1_step, x) > FALSE_ALARM
    assert x is MASKS or law_p(replace(sampler, edit=None), llada2_1_step, x) < CERTAIN


@pytest.mark.parametrize("x", [MASKS, SOME])
def test_threshold_s_law_is_that_of_the_published_step(x):
    sampler = preset("threshold", block=4, confidence=0.9 - 1e-9, draw=Draw(0.8))
    assert law_p(sampler, fast_dllm_step, x) > FALSE_ALARM
