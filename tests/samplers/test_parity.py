"""Each published sampler beside a short transcription of its formula: token for token, or its law in many rows.

The transcriptions go over whole sequences of x (B, R), in the order of the papers' pseudo-code or of the released code,
with every default of theirs. `docs/samplers.md` says which is which. Laws are compared step by step: the shares of rows
in which a position goes from one token or mask to another, in standard errors of the difference.
"""

from dataclasses import replace
from math import ceil, floor

import pytest
import torch
from tokens import Fixed

from redraft import preset
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw
from redraft.samplers.scorers import Confidence, Entropy, Margin, halton_rank

WORDS, LENGTH, ROWS = 4, 6, 3000
MASK = WORDS
GREEDY, ALL = Draw(temperature=0), Draw()
WRONG = torch.tensor([1.5, -1.0, 0.3, 2.0, -0.5, 0.8, -2.0, 1.1, 0.0, -1.4, 0.6, -0.2])


def stub(length=LENGTH, words=WORDS, ends=(), seed=3):
    """A network whose logits are of all tokens: a random linear map of each position's own table."""
    draws = torch.Generator().manual_seed(seed)
    bias = torch.randn(length, words, generator=draws, dtype=torch.float64) * 1.5
    table = torch.randn(length, words + 1, length * words, generator=draws, dtype=torch.float64)

    def forward(x, state):
        said = sum(table[place, x[:, place]] for place in range(length))
        logits = bias + said.view(len(x), length, words) * 0.7
        return torch.cat([logits, torch.full((len(x), length, 1), -torch.inf)], 2), torch.zeros(len(x), length, 2)

    critics = {
        "star": Fixed(WRONG[:length], vocabulary=words + 1),
        "prism": Fixed(WRONG[:length], "state", words + 1),
    }
    return TokenModel("stub", forward, Convention(words + 1, words, ends=ends), length, features=True, critics=critics)


STUB = stub()


def walked(sampler, x, model=STUB, steps=None):
    """The tokens (B, R) after each step of a walk over the masks in `x` (B, R)."""
    free, rows = x == model.convention.mask, torch.arange(len(x))
    state, streams = State(x, free.float(), ~free, rows), Streams.root(11, rows)
    walk, found = sampler.init(model, state, streams), []
    for _ in range(steps or sampler.steps):
        walk = sampler.step(model, walk, streams)
        found.append(walk.state.x)
    return found


def logits_of(x, model=STUB):
    return model.forward(x, None)[0][..., : model.convention.mask].clone()


def transcribed(step, x, steps, model=STUB):
    """The tokens (B, R) after each of the steps that `step(x, logits, k, draws)` makes."""
    draws, found = torch.Generator().manual_seed(5), []
    for k in range(steps):
        x = step(x.clone(), logits_of(x, model), k, draws)
        found.append(x)
    return found


def masks(rows=ROWS, length=LENGTH):
    return torch.full((rows, length), MASK)


def same_law(ours, theirs, limit=5.0):
    """Whether the shares of all moves, at all positions and steps, differ by less than `limit` standard errors."""
    one, other = (moves(found) for found in (ours, theirs))
    both = (one + other) / 2
    error = (2 * both * (1 - both) / len(ours[0])).sqrt().clamp_min(1 / len(ours[0]))
    return bool(((one - other).abs() < limit * error).all())


def moves(found):
    """Share (steps, R, (V + 1)^2) of rows in which a position goes from one of the V + 1 to another."""
    pairs = [old * (WORDS + 1) + new for old, new in zip([masks(*found[0].shape), *found[:-1]], found, strict=True)]
    return torch.stack([torch.nn.functional.one_hot(pair, (WORDS + 1) ** 2).double().mean(0) for pair in pairs])


def uniform(draws, *shape):
    return torch.rand(*shape, generator=draws, dtype=torch.float64)


def gumbel(draws, *shape):
    return -(-uniform(draws, *shape).log()).log()


def drawn(p, draws):
    """Tokens (B, R) of probabilities (B, R, V)."""
    return torch.multinomial(p.flatten(0, 1), 1, generator=draws).view(p.shape[:2])


def dropped(p, top_p):
    """MDLM's nucleus: words from the likeliest on while their sum stays within top_p, and always the first."""
    ordered, index = p.sort(-1, descending=True)
    keep = ordered.cumsum(-1) <= top_p
    keep[..., 0] = True
    kept = torch.zeros_like(p).scatter(-1, index, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)


def crossing(logits, top_p):
    """The usual nucleus: words from the likeliest on until their sum has reached top_p."""
    p, index = logits.softmax(-1).sort(-1, descending=True)
    out = torch.zeros_like(p, dtype=torch.bool).scatter(-1, index, p.cumsum(-1) - p > top_p)
    return logits.masked_fill(out, -torch.inf)


def lowest(score, where, number):
    """The `number` (B,) positions in `where` (B, R) of lowest score."""
    rank = score.masked_fill(~where, torch.inf).argsort(1).argsort(1)
    return where & (rank < torch.as_tensor(number).reshape(-1, 1))


# Schedules of numbers: one token after another -----------------------------------------------------------------------


def prompts(rows=24, length=12, words=WORDS):
    x = torch.full((rows, length), words)
    x[:, :4] = torch.randint(0, words, (rows, 4), generator=torch.Generator().manual_seed(1))
    return x


LONG = stub(12)


def llada_of(steps, block, ends_last=False, ends=()):
    """LLaDA's generate() at temperature 0 for 8 new tokens after 4 of a prompt."""
    per_block = steps // (8 // block)

    def step(x, logits, k, draws):
        at, last = k % per_block, 4 + (k // per_block + 1) * block
        tokens = logits.argmax(-1)
        if ends_last:
            logits[..., list(ends)] = -torch.inf
        sure = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]
        hidden = x == WORDS
        hidden[:, last:] = False
        for row in range(len(x)):
            left = int(hidden[row].sum())
            number = ceil(left / (per_block - at))  # base, and one more for the first `remainder` steps
            best = sure[row].masked_fill(~hidden[row], -1).topk(number).indices
            x[row, best] = tokens[row, best]
        return x

    return step


@pytest.mark.parametrize(("steps", "block"), [(8, 8), (5, 8), (8, 4), (4, 4), (8, 2)])
def test_llada(steps, block):
    theirs = transcribed(llada_of(steps, block), prompts(), steps, LONG)
    assert all(map(torch.equal, walked(preset("llada", steps=steps, block=block), prompts(), LONG), theirs))


def test_llada_with_end_tokens_last():
    """Softmax is taken after the ends' logits are lowered: the others' confidences rise with what the ends had."""
    ends, model = (1, 3), stub(12, ends=(1, 3))
    sampler = replace(preset("llada", steps=8, block=None, ends_last=True), stop=False)  # theirs fills all the room
    ours = walked(sampler, prompts(), model)
    theirs = transcribed(llada_of(8, 8, True, ends), prompts(), 8, model)
    ending = [(x[:, 4:, None] == torch.tensor(ends)).any(2) for x in ours]
    before = [~(x[:, 4:] == WORDS) for x in ours]
    assert any(e.any() for e in ending[:-1])
    for one, other, end, there in zip(ours, theirs, ending, before, strict=True):
        rows = ~(end & there).any(1)  # of several ends left, theirs takes any
        assert torch.equal(one[rows], other[rows])
    plain = walked(replace(preset("llada", steps=8, block=None), stop=False), prompts(), model)
    naive = transcribed(llada_of(8, 8), prompts(), 8, model)
    assert all(map(torch.equal, plain, naive))
    assert not torch.equal(plain[3], ours[3])


def dream_of(steps, alg, temperature=0.0, top_p=None, alg_temp=0.0, eps=1e-3):
    """Dream's _sample, with the counts of each row."""
    times = torch.linspace(1, eps, steps + 1, dtype=torch.float64)

    def step(x, logits, k, draws):
        logits = logits / temperature if temperature else logits
        logits = crossing(logits, top_p) if top_p else logits
        p = logits.softmax(-1)
        tokens = drawn(p, draws) if temperature else p.argmax(-1)
        two = p.sort(-1, descending=True).values
        score = {
            "maskgit_plus": p.gather(-1, tokens[..., None])[..., 0],
            "topk_margin": two[..., 0] - two[..., 1],
            "entropy": (p * (p + 1e-10).log()).sum(-1),
        }[alg]
        hidden = x == MASK
        for row in range(len(x)):
            places, left = hidden[row].nonzero()[:, 0], int(hidden[row].sum())
            number = left if k == steps - 1 else int(left * (1 - times[k + 1] / times[k]))
            if not number:
                continue
            if alg_temp:
                chance = (score[row, places] / alg_temp).softmax(0)
                chosen = places[torch.multinomial(chance, number, generator=draws)]
            else:
                chosen = places[score[row, places].topk(number).indices]
            x[row, chosen] = tokens[row, chosen]
        return x

    return step


ALGS = {
    "entropy": Entropy(shaped=True),
    "topk_margin": Margin(shaped=True),
    "maskgit_plus": Confidence(shaped=True, log=False),
}


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("steps", [8, 5, 12])
def test_dream_at_temperature_0(alg, steps):
    ours = walked(preset("dream", steps=steps, draw=GREEDY, scorer=ALGS[alg]), prompts(), LONG, steps)
    assert all(map(torch.equal, ours, transcribed(dream_of(steps, alg), prompts(), steps, LONG)))


@pytest.mark.parametrize(
    ("alg", "settings"),
    [
        ("entropy", {"temperature": 1.5, "top_p": 0.9}),  # where no two positions are sure alike
        ("topk_margin", {"temperature": 0.6, "top_p": 0.8, "alg_temp": 0.3}),
        ("maskgit_plus", {"temperature": 0.6, "top_p": 0.8, "alg_temp": 0.2}),
    ],
)
def test_dream_s_law(alg, settings):
    draw = Draw(settings["temperature"], settings["top_p"])
    ours = preset("dream", steps=4, draw=draw, scorer=ALGS[alg], noise=settings.get("alg_temp", 0.0))
    theirs = transcribed(dream_of(4, alg, **settings), masks(), 4)
    assert same_law(walked(ours, masks()), theirs)
    other = {
        "entropy": {"scorer": Entropy()},
        "topk_margin": {"scorer": Margin()},
        "maskgit_plus": {"scorer": Confidence()},
    }
    raw = preset("dream", steps=4, draw=draw, noise=settings.get("alg_temp", 0.0), **other[alg])
    assert not same_law(walked(raw, masks()), theirs)


def test_dream_s_defaults_rank_what_temperature_and_top_p_have_left():
    """Dream's T = .2 and top-p .95: [.6, .1, .1, .1, .1] is sure, [.5, .5] a coin, though of less entropy before."""
    p = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0, 0, 0], [0.2] * 5], dtype=torch.float64)
    logits = torch.cat([p.log(), torch.full((3, 1), -torch.inf)], 1)
    model = TokenModel("three", lambda x, state: (logits.repeat(len(x), 1, 1), None), Convention(6, 5), 3)
    first = walked(preset("dream", steps=3), torch.full((50, 3), 5), model)[1]
    assert ((first != 5) == torch.tensor([True, False, False])).all()


def test_dream_s_counts():
    """t from 1 to 1e-3: of 128 tokens 0 in the first of 128 steps and 2 in the last."""
    model = stub(128)
    left = [(x == MASK).sum() for x in walked(preset("dream", steps=128, draw=GREEDY), masks(1, 128), model)]
    counts = -torch.tensor([128, *left]).diff()
    assert counts.tolist() == [0] + [1] * 126 + [2]


def scheduled(steps, score, curve, length=LENGTH):
    """Reveal the best of the masks so that `curve((k + 1) / steps)` of them stay."""

    def step(x, logits, k, draws):
        p = logits.softmax(-1)
        tokens = drawn(p, draws)
        hidden = x == MASK
        number = 0 if k == steps - 1 else floor(curve((k + 1) / steps) * length + 1e-9)
        stay = lowest(score(p, tokens, k, draws), hidden, [min(number, max(int(h.sum()) - 1, 0)) for h in hidden])
        return torch.where(hidden & ~stay, tokens, x)

    return step


def test_margin_and_entropy():
    def gap(p, tokens, k, draws):
        two = p.topk(2).values
        return two[..., 0] - two[..., 1]

    def order(p, tokens, k, draws):
        return (p * p.log()).sum(-1)

    for name, score in (("margin", gap), ("entropy", order)):
        theirs = transcribed(scheduled(4, score, lambda done: 1 - done), masks(), 4)
        assert same_law(walked(preset(name, steps=4), masks()), theirs)
        assert not same_law(walked(preset("ancestral", steps=4), masks()), theirs)


def maskgit_of(steps, temperature, length):
    """MaskGIT's decode(): at least one mask goes and one stays, noise at what is left of the steps."""

    def step(x, logits, k, draws):
        p, hidden, ratio = logits.softmax(-1), x == MASK, (k + 1) / steps
        tokens = drawn(p, draws)
        if k == steps - 1:
            return torch.where(hidden, tokens, x)
        count = hidden.sum(1)
        number = torch.minimum(
            count - 1, torch.full_like(count, floor(torch.cos(torch.tensor(ratio * torch.pi / 2)) * length))
        )
        score = p.gather(-1, tokens[..., None])[..., 0].log() + temperature * (1 - ratio) * gumbel(draws, *x.shape)
        return torch.where(hidden & ~lowest(score, hidden, number.clamp_min(1)), tokens, x)

    return step


@pytest.mark.parametrize(("steps", "temperature"), [(4, 4.5), (4, 1.0), (5, 0.0), (9, 4.5)])
def test_maskgit(steps, temperature):
    ours = walked(preset("maskgit", steps=steps, noise=temperature), masks())
    assert same_law(ours, transcribed(maskgit_of(steps, temperature, LENGTH), masks(), steps))


@pytest.mark.parametrize("steps", [3, 8, 16])
def test_halton(steps):
    """The authors' counts, max(k, int(r n)), on their order: points of the sequence from number 1, doubles left out."""
    order, seen = [], set()
    for number in range(1, 400):
        point = [0.0, 0.0]
        for axis, base in enumerate((2, 3)):
            digits, place = number, 1 / base
            while digits:
                point[axis] += digits % base * place
                digits, place = digits // base, place / base
        cell = floor(point[0] * 4 + 1e-9) * 4 + floor(point[1] * 4 + 1e-9)
        order += [cell] if cell not in seen else []
        seen.add(cell)
    assert halton_rank(4, 4)[order].tolist() == list(range(16))
    model, found = stub(16), walked(preset("halton", steps=steps, draw=GREEDY), masks(3, 16), stub(16), steps)
    x = masks(3, 16)
    for k in range(steps):
        tokens = logits_of(x, model).argmax(-1)
        ratio = torch.tensor((k + 1) / steps, dtype=torch.float64)
        shown = max(k + 1, int((1 - torch.arccos(ratio) / (torch.pi / 2)) * 16 + 1e-9))
        new = [cell for cell in order[:shown] if x[0, cell] == MASK]
        x[:, new] = tokens[:, new]
        assert torch.equal(found[k], x)


# Probabilities: ancestral sampling and ReMDM --------------------------------------------------------------------------


def remdm_of(steps, sigma_of, top_p=0.9, kept=lambda t: 1 - t, window=(0.0, 1.0), made_up=True):
    """ReMDM's update: revealed tokens go with sigma, masks stay with (1 - a_s - sigma a_t) / (1 - a_t)."""
    confidence = {}

    def step(x, logits, k, draws):
        t, s = 1 - k / steps, 1 - (k + 1) / steps
        a, b = kept(t), kept(s)
        hidden, p = x == MASK, dropped(logits.softmax(-1), top_p)
        tokens, chance = drawn(p, draws), uniform(draws, *x.shape)
        if k == steps - 1:
            return torch.where(hidden, tokens, x)
        most = min(1.0, (1 - b) / a) if a > 0 else 1.0
        inside = window[0] < t - 1e-9 and t <= window[1] + 1e-9
        old = confidence.get("of", torch.zeros(x.shape, dtype=torch.float64))
        sigma = sigma_of(most, a, b, ~hidden, old) if inside else torch.zeros(1, 1, dtype=torch.float64)
        sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(x.shape)
        there = (~hidden).sum(1, keepdim=True).clamp_min(1)
        mean = (sigma * ~hidden).sum(1, keepdim=True) / there if made_up else sigma * hidden * 0
        mean = sigma if sigma_of.__name__ != "conf" else mean
        stay = (1 - b - mean * a) / (1 - a) if a > 0 else torch.tensor(1 - b)
        shown, lost = hidden & (chance >= stay), ~hidden & (chance < sigma)
        confidence["of"] = torch.where(shown, p.gather(-1, tokens[..., None])[..., 0], old)
        return torch.where(shown, tokens, x).masked_fill(lost, MASK)

    return step


def cap(most, a, b, shown, old):
    return min(0.2, most)


def rescale(most, a, b, shown, old):
    return 0.3 * most


def none(most, a, b, shown, old):
    return 0.0


def star(most, a, b, shown, old):
    return 1 - b


def backward(most, a, b, shown, old):
    return min((b - a) / a, most) if a > 0 else 1.0


def conf(most, a, b, shown, old):
    score = (-old).masked_fill(~shown, -torch.inf)
    return torch.where(shown.any(1, keepdim=True), score.softmax(1), 0.0).nan_to_num() * most * shown


def plateau(t):
    return (1 - t) * 0.8 / 0.5 if t > 0.5 + 1e-9 else 1 - t * 0.2 / 0.1 if t < 0.1 - 1e-9 else 0.8


LOOP = {"on": 0.5, "off": 0.1, "kept_on": 0.8}
WINDOW = {"window": (0.1, 0.5), "kept": plateau}


@pytest.mark.parametrize(
    ("name", "steps", "settings", "sigma", "theirs"),
    [
        ("ancestral", 5, {}, none, {"top_p": 1.0}),
        ("remdm-cap", 6, {"eta": 0.2}, cap, {}),
        ("remdm-rescale", 6, {"eta": 0.3}, rescale, {}),
        ("remdm-conf", 6, {}, conf, {}),
        ("remdm-conf-released", 6, {}, conf, {"made_up": False}),
        ("remdm-loop", 10, {"eta": 0.2, **LOOP}, cap, WINDOW),
        ("forward-backward", 4, {}, backward, {"top_p": 1.0}),
        ("forward-backward", 8, {}, backward, {"top_p": 1.0}),
        ("star", 6, {}, star, {}),
        ("star+", 10, {"on": 0.3}, star, {"window": (0.0, 0.3)}),
        ("star-loop", 10, LOOP, star, WINDOW),
    ],
)
def test_rates(name, steps, settings, sigma, theirs):
    ours = walked(preset(name, steps=steps, **settings), masks())
    assert same_law(ours, transcribed(remdm_of(steps, sigma, **theirs), masks(), steps))
    if name != "ancestral":
        assert not same_law(ours, transcribed(remdm_of(steps, none, **theirs), masks(), steps))


def test_remdm_conf_s_two_schedules_differ():
    released = transcribed(remdm_of(6, conf, made_up=False), masks(), 6)
    assert not same_law(walked(preset("remdm-conf", steps=6), masks()), released)


def test_as_released_remdm_conf_is_late():
    """With as many steps as tokens 81.5 % are masked at t = 1/2, where the schedule has 50 %."""
    model = stub(64)
    for name, share in (("remdm-conf-released", 0.815), ("remdm-conf", 0.5)):
        x = walked(preset(name, steps=64), masks(60, 64), model, 32)[-1]
        assert abs(float((x == MASK).double().mean()) - share) < 0.02


@pytest.mark.parametrize("steps", [4, 8])
def test_forward_and_backward_keeps_the_marginals_on_coarse_grids(steps):
    """As many tokens survive to each level as its schedule says; masking a token again in the last step does not."""
    for k, x in enumerate(walked(preset("forward-backward", steps=steps), masks())):
        kept, n = (k + 1) / steps, x.numel()
        assert abs(float((x != MASK).double().mean()) - kept) <= 4 * (kept * (1 - kept) / n) ** 0.5


def test_the_corrector():
    """Each position's two states, a the share of tokens, at rate 1 to the mask and a / (1 - a) back, for a time 0.4."""

    def step(x, logits, k, draws):
        s = 1 - (k + 1) / 4
        x = remdm_of(4, none, 1.0)(x, logits, k, draws)
        if k == 3:
            return x
        a, hidden, chance = 1 - s, x == MASK, uniform(draws, *x.shape)
        flips = torch.linalg.matrix_exp(torch.tensor([[-1.0, 1.0], [a / (1 - a), -a / (1 - a)]]).double() * 0.4)
        tokens = drawn(logits_of(x).softmax(-1), draws)
        lost, shown = ~hidden & (chance < flips[0, 1]), hidden & (chance < flips[1, 0])
        return torch.where(shown, tokens, x).masked_fill(lost, MASK)

    theirs = transcribed(step, masks(), 4)
    assert same_law(walked(preset("corrector", steps=4, size=0.4), masks()), theirs)
    assert not same_law(walked(preset("corrector", steps=4, size=2.0), masks()), theirs)
    assert not same_law(walked(preset("ancestral", steps=4), masks()), theirs)


# All positions ranked together ----------------------------------------------------------------------------------------


def p2_of(steps, eta=1.0, tau=1.0, fresh=False):
    """P2 with self-planning: of all free positions the lowest scores are masked; `fresh` is the authors' code."""

    def step(x, logits, k, draws):
        hidden, fixed = x == MASK, x != MASK if k == 0 else step.fixed
        step.fixed = fixed
        noisy = logits / tau + gumbel(draws, *logits.shape) if tau else logits
        score, tokens = noisy.log_softmax(-1).max(-1)
        if not fresh:
            there = torch.where(hidden, tokens, x)
            score = logits.log_softmax(-1).gather(-1, there[..., None])[..., 0]
        score = torch.where(hidden, score, score * eta)
        number = ((~fixed).sum(1) * (1 - (k + 1) / steps) + 1e-9).long()
        lost = lowest(score, ~fixed, number)
        return torch.where(hidden & ~lost, tokens, x).masked_fill(lost, MASK)

    return step


@pytest.mark.parametrize(("name", "fresh"), [("p2", False), ("p2-released", True)])
class TestP2:
    @pytest.mark.parametrize("eta", [1.0, 2.0])
    def test_token_for_token(self, name, fresh, eta):
        ours = walked(preset(name, steps=6, draw=GREEDY, eta=eta), prompts(60), LONG)
        theirs, other = (transcribed(p2_of(6, eta, 0.0, f), prompts(60), 6, LONG) for f in (fresh, not fresh))
        assert all(map(torch.equal, ours, theirs))
        assert not all(map(torch.equal, ours, other))

    @pytest.mark.parametrize(("eta", "tau"), [(1.0, 1.0), (0.5, 0.7)])
    def test_law(self, name, fresh, eta, tau):
        ours = walked(preset(name, steps=4, draw=Draw(tau), eta=eta), masks())
        theirs, other = (transcribed(p2_of(4, eta, tau, f), masks(), 4) for f in (fresh, not fresh))
        assert same_law(ours, theirs)
        assert not same_law(ours, other)


def judged_of(steps, kept, noise, window=(0.0, 1.0), top_p=1.0, rounding=ceil, annealed=False, otherwise=None):
    """The critic's most suspicious tokens of a whole proposal are masked: (1 - a_s) L of them, by Gumbel top-k."""

    def step(x, logits, k, draws):
        t, s, hidden = 1 - k / steps, 1 - (k + 1) / steps, x == MASK
        if k < steps - 1 and not (window[0] < t - 1e-9 and t <= window[1] + 1e-9):
            return otherwise(x, logits, k, draws)
        x = torch.where(hidden, drawn(dropped(logits.softmax(-1), top_p), draws), x)
        nudge = 1e-9 if rounding is floor else -1e-9
        number = rounding((1 - kept(s)) * x.shape[1] + nudge) if k < steps - 1 else 0
        scale = noise * (s if annealed else 1)
        score = WRONG[: x.shape[1]] + scale * gumbel(draws, *x.shape)
        return x.masked_fill(lowest(-score, torch.ones_like(hidden), [number] * len(x)), MASK)

    return step


def cosine(t):
    return 1 - float(torch.sin(torch.tensor(torch.pi / 2 * t)))


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("name", ["g-star+", "g-star-loop", "token-critic"])
def test_critics(name, noise):
    ancestral = remdm_of(10, none, 0.9)
    settings, theirs = {
        "g-star+": ({"on": 0.5}, judged_of(10, lambda t: 1 - t, noise, (0.0, 0.5), 0.9, otherwise=ancestral)),
        "g-star-loop": (
            LOOP,
            judged_of(10, plateau, noise, (0.1, 0.5), 0.9, otherwise=remdm_of(10, none, 0.9, plateau)),
        ),
        "token-critic": ({}, judged_of(10, cosine, noise, rounding=floor, annealed=True)),
    }[name]
    ours = walked(preset(name, steps=10, noise=noise, **settings), masks())
    assert same_law(ours, transcribed(theirs, masks(), 10))


def test_prism():
    """Binomial(shown, min(eta, sigma_max)) of the least quality go, and as many masks more than planned are shown."""

    def step(x, logits, k, draws):
        t, s, hidden = 1 - k / 10, 1 - (k + 1) / 10, x == MASK
        tokens = drawn(logits.softmax(-1), draws)
        if k == 9:
            return torch.where(hidden, tokens, x)
        if t > 0.5 + 1e-9:
            return remdm_of(10, none, 1.0)(x, logits, k, draws)
        planned = (hidden.sum(1) - floor(s * LENGTH + 1e-9)).clamp_min(0)
        rate = min(0.4, s / (1 - t))
        number = (~hidden & (uniform(draws, *x.shape) < rate)).sum(1)
        number = torch.minimum(number, hidden.sum(1) - planned)
        lost = lowest(-WRONG[:LENGTH].expand(x.shape), ~hidden, number)
        shown = lowest(uniform(draws, *x.shape), hidden, planned + number)
        return torch.where(shown, tokens, x).masked_fill(lost, MASK)

    ours = walked(preset("prism", steps=10, eta=0.4), masks())
    assert same_law(ours, transcribed(step, masks(), 10))
    assert not same_law(walked(preset("prism", steps=10, eta=0.0), masks()), transcribed(step, masks(), 10))
