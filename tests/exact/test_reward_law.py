"""Reward-guided methods against a Markov chain small enough to enumerate the tilted law p(x) exp(r(x) / alpha)."""

from dataclasses import replace

import pytest
import torch
from checks import CERTAIN, FALSE_ALARM, counts_p
from tokens import CHAIN, causal_model, exact_model, masked_states, noised_law, number, problems, walk_at

import redraft
from redraft import IPR, Budget, Generate, RedraftError, Sequential, Unmask
from redraft.core.state import Draft
from redraft.core.verifier import VerifierError
from redraft.methods.beam import Beam
from redraft.methods.best_of_n import BestOfN
from redraft.methods.blame import Blame, Metropolis
from redraft.methods.fk import FK, Cloud
from redraft.methods.iterref import IterRef
from redraft.methods.particle_gibbs import ParticleGibbs
from redraft.methods.svdd import SVDD
from redraft.methods.value import Reward
from redraft.processes.categorical import Draw
from redraft.samplers.budgets import Even, Threshold
from redraft.samplers.rules import Rule
from redraft.samplers.scorers import Confidence, Entropy
from redraft.tasks.markov import MarkovChain

MODEL = exact_model()
ROWS = 4000
ONE_BY_ONE = Unmask(4, Rule(Even(), None))
SUREST = Rule(Threshold(1.0), Entropy())  # one token at a time, whichever is drawn, at its own pace
PLACES = torch.tensor([8, 4, 2, 1])
REWARD = torch.linspace(-1, 1, 16, dtype=torch.float64)[torch.randperm(16, generator=torch.Generator().manual_seed(1))]
ALPHA = 0.5
SEQUENCES, LAW = CHAIN.enumerate()


def verifier(samples, given):
    """A reward of each of the 16 sequences."""
    return REWARD[(samples * PLACES).sum(1)]


def tilted(law=LAW, alpha=ALPHA):
    weights = law * (REWARD / alpha).exp()
    return weights / weights.sum()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def drawn(law, rows=ROWS, seed=0):
    """Exact draws (rows, 4)."""
    return SEQUENCES[torch.multinomial(law, rows, True, generator=generator(seed))]


def counts(samples):
    return torch.bincount((samples * PLACES).sum(1), minlength=16)


def refined_p(method, start=None, verifier=verifier, model=MODEL, law=None):
    """That the chain's moves leave the tilted law as it is, or end in it from `start`."""
    law = tilted() if law is None else law
    given = problems(ROWS)
    result = redraft.run(method, model, given, verifier=verifier, start=drawn(law) if start is None else start)
    return counts_p(counts(result.samples), law)


def final(**settings):
    """Moves of finished samples."""
    chosen = {"levels": (0.0,), "distance": 0.5, "moves": 3, "candidates": 2, "rounds": 2} | settings
    return IterRef(**{"reward": Reward(ALPHA), "sampler": Sequential(1, order="random")} | chosen)


@pytest.mark.parametrize(
    "settings",
    [
        {"a": 0.0},
        {"a": 0.0, "reuse": False},
        {"a": 0.0, "candidates": 1},
        {"a": 0.5},
        {"a": 1.0},
        {"a": 1.0, "candidates": 4, "moves": 2},
        {"a": 0.0, "candidates": 4, "moves": 6},
        {"distance": 1.0, "sampler": ONE_BY_ONE},
        {"sampler": Unmask(16, Rule(Even(), None), block=2)},
        {"sampler": Unmask(8, block=1), "distance": 0.3, "a": 1.0},
        {"sampler": Unmask(4, Rule(Even(), None), block=2), "distance": 1.0},
        {"sampler": Unmask(8, block=1, aligned=True)},
        {"sampler": Unmask(None, SUREST, SUREST, block=2)},
        {"sampler": Unmask(None, SUREST, SUREST, block=2, aligned=True), "a": 1.0},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_iterref_leaves_the_tilted_law_as_it_is(settings):
    assert refined_p(final(**settings)) > FALSE_ALARM


@pytest.mark.parametrize(
    "settings", [{"a": 0.0}, {"a": 1.0}, {"sampler": Unmask(8, block=1), "distance": 0.5, "moves": 12, "candidates": 1}]
)
def test_iterref_goes_to_the_tilted_law_from_another(settings):
    start = drawn(LAW, seed=3)
    assert counts_p(counts(start), tilted()) < CERTAIN
    chosen = {"moves": 8, "candidates": 3, "distance": 1.0} | settings
    assert refined_p(final(**chosen), start) > FALSE_ALARM


@pytest.mark.parametrize(("aligned", "right"), [(True, True), (False, False)])
@pytest.mark.parametrize("pace", [{"steps": 8}, {"steps": None, "rule": SUREST, "outside": SUREST}])
def test_a_network_that_sees_no_later_block_redraws_samples_from_their_end(aligned, right, pace):
    """It draws an earlier token without regard to those after it, as the control has it do."""
    method = final(sampler=Unmask(**pace, block=1, aligned=aligned))
    p = refined_p(method, model=causal_model())
    assert p > FALSE_ALARM if right else p < CERTAIN


def test_walks_in_blocks_at_their_own_pace_are_taken_up_at_their_end_only():
    method = IterRef((0.5,), sampler=Unmask(None, SUREST, SUREST, block=2))
    with pytest.raises(RedraftError, match="at its end only: refine at level 0, or use block=None"):
        redraft.run(method, MODEL, problems(3), verifier=verifier)
    together = Rule(Threshold(0.0), Entropy())
    assert refined_p(final(sampler=Unmask(None, together, together, block=2), distance=1.0)) < CERTAIN


class WithoutItself(IterRef):
    """The broken variant: the reference set has a fresh draw in place of the current state."""

    def _reference(self, *args):
        whole = replace(self, candidates=self.candidates + 1)
        return IterRef._reference(whole, *args)

    def _log_w(self, to, origin):
        return super()._log_w(to[:, : self.candidates], origin)


class Retrying(IterRef):
    """The broken variant: a pool whose candidates were all rejected is tried again."""

    def _tried(self, model, chain, candidate, streams, verifier):
        tried = super()._tried(model, chain, candidate, streams, verifier)
        rejected = tried.accepted == chain.accepted
        return replace(tried, used=torch.where(rejected & (tried.used == self.candidates), 0, tried.used))


def test_a_reference_set_without_the_current_state_is_found_out():
    broken = WithoutItself(**vars(final(a=1.0, candidates=2)))
    assert refined_p(broken) < CERTAIN


def test_a_pool_that_is_tried_again_is_found_out():
    broken = Retrying(**vars(final(candidates=1, moves=6)))
    assert refined_p(broken) < CERTAIN


def test_a_sampler_that_draws_tokens_together_is_found_out():
    """Its kernel is not reversible with respect to the chain's law."""
    assert refined_p(replace(final(), sampler=Unmask(1))) < CERTAIN
    assert refined_p(final(sampler=Unmask(2, block=2), distance=1.0)) < CERTAIN


PRODUCT = MarkovChain(
    transition=torch.tensor([[0.6, 0.4], [0.6, 0.4]], dtype=torch.float64),
    initial=torch.tensor([0.6, 0.4], dtype=torch.float64),
    length=4,
)


class Soft(Reward):
    """Values states by alpha log E exp(r / alpha) itself, enumerated."""

    chain = PRODUCT

    def value(self, sampler, model, walk, streams, verifier):
        x = walk.state.x
        fits = ((x[:, None] == SEQUENCES) | (x[:, None] == 2)).all(2)
        law = self.chain.enumerate()[1]
        weights = (fits * law * (REWARD / self.alpha).exp()).sum(1) / (fits * law).sum(1)
        return walk, self.alpha * weights.log()


@pytest.mark.parametrize(("a", "right"), [(0.0, True), (1.0, True), (0.0, False)])
def test_iterref_on_the_way_leaves_the_tilted_law_of_its_level_as_it_is(a, right):
    """Of all 81 sequences with masks; independent tokens make factorised steps exact. The control's alpha is off."""
    model, sampler = exact_model(PRODUCT), Unmask(4)
    base = noised_law(0.5, PRODUCT)
    states = masked_states(PRODUCT)
    walk, streams = walk_at(sampler, model, states, 2)
    value = Soft(ALPHA).value(sampler, model, walk, None, None)[1]
    law = base * (value / ALPHA).exp()
    start = torch.multinomial(law, 6000, True, generator=generator(0))
    walk, streams = walk_at(sampler, model, states[start], 2)
    method = IterRef(
        (0.75, 0.5, 0.25, 0.0),
        0.5,
        moves=3,
        candidates=2,
        a=a,
        reward=Soft(ALPHA if right else 2 * ALPHA),
        sampler=sampler,
    )
    chain = method._refined(model, walk, None, 0.5, streams, verifier)
    assert chain.accepted.sum() > 1000
    p = counts_p(torch.bincount(number(chain.walk.state.x, PRODUCT), minlength=81), law)
    assert p > FALSE_ALARM if right else p < CERTAIN


@pytest.mark.parametrize("broken", [False, True])
def test_rows_without_masks_are_refined_as_states_of_their_level(monkeypatch, broken):
    """At level 1/8 most states have no mask left; noised from level 0, as in the control, they would lose too much."""
    model, sampler, states, level = exact_model(PRODUCT), Unmask(8), masked_states(PRODUCT), 1 / 8
    law = noised_law(1 - level, PRODUCT)
    walk, _ = walk_at(sampler, model, states, 7)
    law = law * (Soft(ALPHA).value(sampler, model, walk, None, None)[1] / ALPHA).exp()
    start = torch.multinomial(law, 6000, True, generator=generator(0))
    walk, streams = walk_at(sampler, model, states[start], 7)
    walk = replace(walk, settled=(walk.state.x != 2).all(1), step=walk.step - (walk.state.x != 2).all(1).long())
    if broken:
        rewind = Unmask.rewind
        monkeypatch.setattr(Unmask, "rewind", lambda *given, at=0.0: rewind(*given))
    method = IterRef((level,), 1 / 8, moves=3, reward=Soft(ALPHA), sampler=sampler)
    chain = method._refined(model, walk, None, level, streams, verifier)
    p = counts_p(torch.bincount(number(chain.walk.state.x, PRODUCT), minlength=81), law)
    assert p < CERTAIN if broken else p > FALSE_ALARM


class SoftInOrder(Soft):
    """The same of the chain whose tokens depend on one another."""

    chain = CHAIN


def refined_on_the_way(sampler, step, distance, soft, kept, alpha=ALPHA):
    """That moves of states with masks leave their tilted law as it is: tokens survive with probabilities `kept` (4,).

    The states have made so many steps, and those that have no mask before the block of the next step are a block on.
    """
    chain = soft.chain
    model, states = exact_model(chain), masked_states(chain)
    level = 1 - step / sampler.steps
    walk, _ = walk_at(sampler, model, states, step)
    law = noised_law(kept, chain) * (soft(ALPHA).value(sampler, model, walk, None, None)[1] / ALPHA).exp()
    start = torch.multinomial(law, 6000, True, generator=generator(0))
    walk, streams = walk_at(sampler, model, states[start], step)
    walk = sampler._onto(model, walk, walk.step)
    method = IterRef((level,), distance, moves=3, candidates=2, reward=soft(alpha), sampler=sampler)
    chain_ = method._refined(model, walk, None, level, streams, verifier)
    assert chain_.accepted.sum() > 1000
    found = torch.bincount(number(chain_.walk.state.x, chain), minlength=81)
    return counts_p(found[law > 0], law[law > 0]) if not found[law == 0].any() else 0.0


IN_BLOCKS = {
    "within a block": (Unmask(8, block=2), 6, 1 / 4, Soft, (1, 1, 0.5, 0.5)),
    "into the block before": (Unmask(8, block=2), 6, 1 / 2, Soft, (1, 1, 0.5, 0.5)),
    "from a block's end": (Unmask(8, block=2), 4, 1 / 4, Soft, (1, 1, 0, 0)),
    "a block that is over early": (Unmask(16, block=2), 7, 1 / 16, Soft, (7 / 8, 7 / 8, 0, 0)),
    "tokens that depend on one another": (Unmask(4, block=1), 2, 1 / 4, SoftInOrder, (1, 1, 0, 0)),
    "all of them": (Unmask(4, block=1), 2, 1 / 2, SoftInOrder, (1, 1, 0, 0)),
    "the attention's blocks": (Unmask(8, block=2, aligned=True), 6, 1 / 2, Soft, (1, 1, 0.5, 0.5)),
}


@pytest.mark.parametrize("case", IN_BLOCKS)
def test_iterref_on_the_way_in_blocks_leaves_the_tilted_law_as_it_is(case):
    given = IN_BLOCKS[case]
    assert refined_on_the_way(*given) > FALSE_ALARM
    assert refined_on_the_way(*given, alpha=2 * ALPHA) < CERTAIN


def test_states_whose_block_is_over_early_are_refined_as_states_of_their_level(monkeypatch):
    """Noised from where they have got to, as in the control, they would lose too much."""
    rewind = Unmask.rewind

    def ahead(sampler, model, walk, level, streams, at=0.0):
        back = rewind(sampler, model, walk, level, streams, at)
        other = rewind(sampler, model, walk, level, streams, 1 - float(walk.step.max()) / sampler.steps)
        return back.put(walk.step == walk.step.max(), other[walk.step == walk.step.max()])

    monkeypatch.setattr(Unmask, "rewind", ahead)
    assert refined_on_the_way(*IN_BLOCKS["a block that is over early"]) < CERTAIN


@pytest.mark.parametrize(("guess", "right"), [("sampler", True), ("network", False)])
def test_guesses_of_a_shaped_sampler_tilt_its_own_law(guess, right):
    """With one guess a state, kept: the pair of both has the law p(x) q(guess | x) exp(r(guess) / alpha) throughout.

    The control guesses as the network does, whose tokens are more even than the sampler's at temperature 1/4.
    """
    law = torch.tensor([81, 16], dtype=torch.float64) / 97
    shaped = replace(PRODUCT, transition=law.repeat(2, 1), initial=law)
    model, sampler, states = exact_model(PRODUCT), Unmask(4, draw=Draw(0.25)), masked_states(PRODUCT)
    start = states[torch.multinomial(noised_law(0.5, shaped), 60000, True, generator=generator(0))]
    walk, streams = walk_at(sampler, model, start, 2)
    value = Reward(ALPHA).value(sampler, model, walk, streams.fold("start"), verifier)[1]
    chosen = torch.multinomial((value / ALPHA).exp(), 6000, True, generator=generator(1))
    walk, streams = walk_at(sampler, model, start[chosen], 2, seed=1)
    method = IterRef((0.5,), 0.5, 8, reward=Reward(ALPHA, guess=guess), sampler=sampler)
    chain = method._refined(model, walk, value[chosen], 0.5, streams, verifier)
    fits = ((states[:, None] == SEQUENCES) | (states[:, None] == 2)).all(2) * shaped.enumerate()[1]
    law = noised_law(0.5, shaped) * (fits * (REWARD / ALPHA).exp()).sum(1) / fits.sum(1)
    p = counts_p(torch.bincount(number(chain.walk.state.x, PRODUCT), minlength=81), law)
    assert p > FALSE_ALARM if right else p < CERTAIN


def one_move(**settings):
    """Counts after one move from the base law."""
    method = final(moves=1, rounds=1, **settings)
    return counts(redraft.run(method, MODEL, problems(ROWS), verifier=verifier, start=drawn(LAW)).samples)


def test_more_candidates_without_reuse_have_the_law_of_one():
    """At a = 0; each against the other as two samples."""
    one, many = (one_move(candidates=n, reuse=False).double() for n in (1, 5))
    assert ((one - many).square() / (one + many)).sum() < 45  # chi-square of 15 degrees: 1e-4 lies at 44
    eager = one_move(candidates=5, a=1.0).double()
    assert ((one - eager).square() / (one + eager)).sum() > 55


def test_alpha_to_infinity_is_the_base_sampler_bit_for_bit():
    given = problems(50)
    base = redraft.run(Generate(ONE_BY_ONE), MODEL, given).samples
    endless = IterRef(reward=Reward(torch.inf), sampler=ONE_BY_ONE)
    assert torch.equal(redraft.run(endless, MODEL, given, verifier=verifier).samples, base)


class TestFK:
    """Sequential Monte Carlo."""

    @pytest.mark.parametrize("potential", ["difference", "max", "sum", "reward"])
    @pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
    def test_the_evidence_is_unbiased(self, potential, threshold):
        """The mean over problems of exp(log evidence) is E exp(r / alpha), whatever is resampled when."""
        method = FK(3, Reward(ALPHA), potential, threshold=threshold, sampler=ONE_BY_ONE, choose="weight")
        assert abs(self.evidence_error(method)) < 4.2

    def evidence_error(self, method):
        """Standard errors between the mean evidence and the truth."""
        truth = float((LAW * (REWARD / ALPHA).exp()).sum())
        evidence = redraft.run(method, MODEL, problems(ROWS), verifier=verifier).trace["log_evidence"].exp()
        return float((evidence.mean() - truth) / (evidence.std() / ROWS**0.5))

    def test_dropping_weights_where_resampling_is_skipped_is_found_out(self):
        class Dropping(FK):
            def _weigh(self, *args):
                walk, cloud = super()._weigh(*args)
                return walk, replace(cloud, log_weight=torch.zeros_like(cloud.log_weight))

        assert abs(self.evidence_error(Dropping(3, Reward(ALPHA), threshold=0.3, sampler=ONE_BY_ONE))) > 6

    @pytest.mark.parametrize("threshold", [0.0, 1.0])
    def test_many_particles_have_the_tilted_law(self, threshold):
        method = FK(32, Reward(ALPHA), threshold=threshold, sampler=ONE_BY_ONE, choose="weight")
        result = redraft.run(method, MODEL, problems(2000), verifier=verifier)
        assert ((counts(result.samples) / 2000 - tilted()).abs().sum() / 2) < 0.06
        assert ((counts(result.samples) / 2000 - LAW).abs().sum() / 2) > 0.2

    def test_a_problem_alone_ends_as_among_others(self):
        method = FK(5, Reward(ALPHA), sampler=ONE_BY_ONE)
        whole = redraft.run(method, MODEL, problems(6), verifier=verifier)
        alone = redraft.run(method, MODEL, problems(6)[2:3], verifier=verifier)
        assert torch.equal(alone.samples[0], whole.samples[2])


class TestParticleGibbs:
    """Rounds of conditional SMC, with few particles, so that one round alone is far from the tilted law."""

    def distance(self, method, n=3000):
        samples = redraft.run(method, MODEL, problems(n), verifier=verifier).samples
        return float((counts(samples) / n - tilted()).abs().sum() / 2)

    def test_rounds_lead_to_the_tilted_law(self):
        one, many = (ParticleGibbs(rounds, 3, Reward(ALPHA), sampler=ONE_BY_ONE) for rounds in (1, 10))
        assert self.distance(many) < 0.045 < 0.07 < self.distance(one)

    def two_particles_p(self):
        """Where resampling often draws every particle itself: two of them, over two tokens."""
        chain = MarkovChain(CHAIN.transition, CHAIN.initial, 2)
        method = ParticleGibbs(20, 2, Reward(ALPHA), sampler=Unmask(2, Rule(Even(), None)))
        rewards, places = torch.tensor([1.0, -1.0, -0.5, 0.6], dtype=torch.float64), torch.tensor([2, 1])
        law = chain.enumerate()[1] * (rewards / ALPHA).exp()
        given = problems(1500, 2)
        samples = redraft.run(
            method, exact_model(chain), given, verifier=lambda x, _: rewards[(x * places).sum(1)]
        ).samples
        return counts_p(torch.bincount((samples * places).sum(1), minlength=4), law / law.sum())

    def test_particles_that_are_drawn_in_place_are_resampled_too(self, monkeypatch):
        assert self.two_particles_p() > FALSE_ALARM
        even = Cloud.drawn

        def keeping(cloud, ancestors):
            """The broken variant: particles that stay where they are keep their weights."""
            same = (ancestors == torch.arange(ancestors.shape[1])).all(1)
            fresh = even(cloud, ancestors)
            return fresh.put(same, cloud[same]) if same.any() else fresh

        monkeypatch.setattr(Cloud, "drawn", keeping)
        assert self.two_particles_p() < CERTAIN

    @pytest.mark.filterwarnings("ignore:ParticleGibbs ended with one distinct candidate")  # one token is free
    def test_a_problem_pays_for_the_verifier_as_it_would_alone(self):
        sampler = Unmask(8, Rule(Threshold(0.8), Confidence()), outside=Rule(Threshold(0.8), Confidence()))
        method = ParticleGibbs(3, 2, Reward(ALPHA), sampler=sampler)
        frozen = torch.arange(4) >= torch.tensor([4, 1, 2, 3])[:, None]
        given = replace(problems(4), frozen=frozen)
        whole = redraft.run(method, MODEL, given, verifier=verifier).ledger.verifier_calls
        parts = [
            redraft.run(method, MODEL, given[i : i + 1], verifier=verifier).ledger.verifier_calls for i in range(4)
        ]
        assert whole.tolist() == torch.cat(parts).tolist()
        assert len(set(whole.tolist())) > 1

    def test_without_the_held_particle_they_do_not(self):
        class Free(ParticleGibbs):
            def _held(self, walk, carry, place):
                return walk

            def _ancestors(self, cloud, walk, streams, held):
                return super()._ancestors(cloud, walk, streams, False)

        assert self.distance(Free(10, 3, Reward(ALPHA), sampler=ONE_BY_ONE)) > 0.07

    def test_a_run_that_was_cut_goes_on_with_the_same_trajectory(self, tmp_path):
        method = ParticleGibbs(4, 3, Reward(ALPHA), sampler=ONE_BY_ONE)
        given, whole = problems(8), redraft.run(method, MODEL, problems(8), verifier=verifier)
        stop = {"on_draft": lambda samples, trace: len(trace) >= 16, "checkpoint": tmp_path}
        redraft.run(method, MODEL, given, verifier=verifier, **stop)
        rest = redraft.run(method, MODEL, given, verifier=verifier, checkpoint=tmp_path)
        assert torch.equal(rest.samples, whole.samples)
        alone = redraft.run(method, MODEL, given[5:6], verifier=verifier)
        assert torch.equal(alone.samples[0], whole.samples[5])


def test_the_best_of_n_has_its_order_statistic_s_law():
    """P(best has reward <= r) = P(r)^N."""
    order = REWARD.argsort()
    below = LAW[order].cumsum(0) ** 4
    law = torch.zeros(16, dtype=torch.float64)
    law[order] = below.diff(prepend=torch.zeros(1, dtype=torch.float64))
    result = redraft.run(BestOfN(4, sampler=ONE_BY_ONE), MODEL, problems(ROWS), verifier=verifier)
    assert counts_p(counts(result.samples), law) > FALSE_ALARM
    three = redraft.run(BestOfN(3, sampler=ONE_BY_ONE), MODEL, problems(ROWS), verifier=verifier)
    assert counts_p(counts(three.samples), law) < CERTAIN


def test_drawing_at_once_changes_no_sample():
    one, other = (
        redraft.run(BestOfN(4, n, sampler=ONE_BY_ONE), MODEL, problems(20), verifier=verifier).samples for n in (1, 4)
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("method", [SVDD(4, Reward(0.1), sampler=ONE_BY_ONE), Beam(2, 3, sampler=ONE_BY_ONE)])
def test_search_raises_the_reward(method):
    result = redraft.run(method, MODEL, problems(500), verifier=verifier)
    base = redraft.run(Generate(ONE_BY_ONE), MODEL, problems(500)).samples
    assert result.trace["reward"].mean() > verifier(base, None).mean() + 0.3
    assert torch.equal(result.trace["reward"], verifier(result.samples, None))
    assert (result.ledger.nfe <= method.nfe(MODEL, draft_of(problems(500)))).all()


def draft_of(given):
    return Draft(given.state())


@pytest.mark.parametrize(
    "method",
    [
        FK(3, Reward(ALPHA, draws=2), sampler=ONE_BY_ONE),
        SVDD(3, Reward(ALPHA), sampler=ONE_BY_ONE),
        Beam(2, 2, sampler=ONE_BY_ONE),
        BestOfN(4, 2, sampler=ONE_BY_ONE),
        ParticleGibbs(3, 2, sampler=ONE_BY_ONE),
        IterRef(rounds=2, candidates=2, sampler=ONE_BY_ONE),
        IterRef(rounds=1, a=1.0, candidates=3, sampler=ONE_BY_ONE),
        IPR(3, refine=Sequential(1), initial=Sequential(1), keep=Metropolis(), select=Blame()),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_draft_costs_no_more_than_a_method_says_and_a_budget_is_a_ceiling(method):
    given = problems(5)
    whole = redraft.run(method, MODEL, given, verifier=Blaming())
    draft, nfe, calls = draft_of(given), torch.zeros(5), torch.zeros(5)
    for place in range(method.total()):
        rows = whole.trace["draft"] == place
        nfe, calls = nfe + method.nfe(MODEL, draft), calls + method.verifier_calls(MODEL, draft)
        assert (whole.trace["nfe"][rows] <= nfe).all()
        assert (whole.trace["verifier_calls"][rows] <= calls).all()
        draft = replace(draft, number=place)
    most = int(calls.max()) - 1
    if method.total() > 1:
        cut = redraft.run(method, MODEL, given, verifier=Blaming(), budget=Budget(verifier_calls=most))
        assert (cut.ledger.verifier_calls <= most).all()


class Relative:
    relative = True

    def __call__(self, samples, given):
        return verifier(samples, given)


def test_ranks_within_a_call_are_refused_where_scores_of_calls_are_compared():
    with pytest.raises(RedraftError, match="ranks within one call"):
        redraft.run(IterRef(sampler=ONE_BY_ONE), MODEL, problems(2), verifier=Relative())
    with pytest.raises(RedraftError, match="ranks within one call"):
        redraft.run(IPR(1, keep=Metropolis()), MODEL, problems(2), verifier=Relative())


@pytest.mark.filterwarnings("ignore:FK ended with one distinct candidate")  # of the problem with one free token
def test_a_strength_that_rises_is_each_problem_s_own():
    method = FK(4, Reward(ALPHA), ramp=1.0, sampler=Unmask(7, Rule(Even(), None), block=1))
    given = replace(problems(3), frozen=torch.arange(4) >= torch.tensor([4, 2, 1])[:, None])
    whole = redraft.run(method, MODEL, given, verifier=verifier).trace["log_evidence"]
    parts = [redraft.run(method, MODEL, given[i : i + 1], verifier=verifier).trace["log_evidence"] for i in range(3)]
    assert torch.equal(whole, torch.cat(parts))
    steady = redraft.run(replace(method, ramp=0.0), MODEL, given, verifier=verifier).trace["log_evidence"]
    assert not torch.equal(whole, steady)


def test_methods_that_only_draft_say_so_of_samples_to_go_on_from():
    for method in (FK(2, sampler=ONE_BY_ONE), SVDD(2, sampler=ONE_BY_ONE), IterRef(rounds=0, sampler=ONE_BY_ONE)):
        with pytest.raises(RedraftError, match="does not go on from samples"):
            redraft.run(method, MODEL, problems(2), verifier=verifier, start=drawn(LAW, 2))


def test_a_verifier_that_fails_loses_nothing():
    calls = []

    def failing(samples, given):
        calls.append(len(samples))
        if len(calls) > 2:
            raise ValueError("out of order")
        return verifier(samples, given)

    with pytest.raises(VerifierError, match="out of order") as caught:
        redraft.run(BestOfN(5, sampler=ONE_BY_ONE), MODEL, problems(3), verifier=failing)
    assert len(caught.value.result.trace) == 6


@pytest.mark.parametrize("a", [0.0, 1.0])
@pytest.mark.parametrize("sampler", [ONE_BY_ONE, Unmask(8, block=2), Unmask(8, block=2, aligned=True)])
def test_iterref_pays_no_more_than_it_says_and_alone_ends_as_among_others(sampler, a):
    method = IterRef((0.75, 0.5, 0.25, 0.0), 0.25, candidates=2, a=a, rounds=1, reward=Reward(ALPHA), sampler=sampler)
    given = problems(6)
    whole = redraft.run(method, MODEL, given, verifier=verifier)
    alone = redraft.run(method, MODEL, given[3:4], verifier=verifier)
    assert torch.equal(alone.samples[0], whole.samples[3])
    assert alone.ledger.nfe[0] == whole.ledger.nfe[3]
    first = whole.trace["nfe"][whole.trace["draft"] == 0]
    assert (first <= method.nfe(MODEL, draft_of(given))).all()


def test_svdd_without_children_is_the_base_in_law():
    result = redraft.run(SVDD(1, Reward(ALPHA), sampler=ONE_BY_ONE), MODEL, problems(ROWS), verifier=verifier)
    assert counts_p(counts(result.samples), LAW) > FALSE_ALARM


class TestIPR:
    """With a verifier."""

    def refined(self, samples=None, n=ROWS, **settings):
        method = IPR(4, 0.5, refine=Sequential(1, order="random"), **settings)
        start = drawn(tilted(), n) if samples is None else samples
        return redraft.run(method, MODEL, problems(n), verifier=Blaming(), start=start)

    def test_metropolis_leaves_the_tilted_law_as_it_is(self):
        assert counts_p(counts(self.refined(keep=Metropolis(ALPHA)).samples), tilted()) > FALSE_ALARM
        assert counts_p(counts(self.refined(keep=Metropolis(3 * ALPHA)).samples), tilted()) < CERTAIN

    def test_blame_leaves_rows_that_pass_alone_and_costs_nothing_there(self):
        start = SEQUENCES[torch.tensor([0, 5, 15, 9])]
        result = self.refined(start, 4, select=Blame(0.0))
        assert torch.equal(result.samples[[0, 2]], start[[0, 2]])
        assert result.ledger.nfe[[0, 2]].tolist() == [0, 0]
        assert (result.ledger.nfe[[1, 3]] > 0).all()

    def test_blame_redraws_what_is_at_fault(self):
        """Sequences are at fault where they differ from their first token; the first round redraws two places."""
        start = SEQUENCES[torch.tensor([3])].repeat(400, 1)  # 0 0 1 1
        method = IPR(1, 0.5, refine=Sequential(1), select=Blame(0.0))
        changed = redraft.run(method, MODEL, problems(400), verifier=Blaming(), start=start).samples != start
        assert changed[:, :2].sum() == 0
        assert changed[:, 2:].any(1).double().mean() > 0.5

    def test_a_verifier_is_asked_for_only_where_it_is_needed(self):
        for settings, given in (({"keep": Metropolis()}, None), ({}, Blaming())):
            with pytest.raises(RedraftError, match="verifier"):
                redraft.run(IPR(1, **settings), MODEL, problems(2), verifier=given)
        with pytest.raises(RedraftError, match="blame"):
            redraft.run(IPR(1, select=Blame()), MODEL, problems(2), verifier=verifier)


class Blaming:
    """The reward, and blame of the tokens that differ from the first."""

    def __call__(self, samples, given):
        return verifier(samples, given)

    def blame(self, samples, given):
        return (samples != samples[:, :1]).double()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Reward(0.0), "alpha is 0.0"),
        (lambda: IterRef((0.5, 0.5)), "give each once"),
        (lambda: Reward(draws=0), "draws is 0"),
        (lambda: Metropolis(-1.0), "alpha is -1.0"),
        (lambda: IterRef(moves=0), "moves is 0"),
        (lambda: IterRef(candidates=0), "candidates is 0"),
        (lambda: IterRef(a=0.3), "a is 0.3"),
        (lambda: IterRef(distance=0.0), "distance is 0.0"),
        (lambda: IterRef(levels=(1.0,)), "levels"),
        (lambda: FK(0), "particles is 0"),
        (lambda: FK(potential="maximum"), "max"),
        (lambda: FK(scheme="systemic"), "systematic"),
        (lambda: BestOfN(0), "n is 0"),
        (lambda: BestOfN(5, 2), "divide"),
        (lambda: SVDD(0), "children is 0"),
        (lambda: Beam(0), "beams is 0"),
        (lambda: redraft.run(IterRef(), MODEL, problems(2)), "needs a verifier"),
        (lambda: redraft.run(IterRef(sampler=Sequential(1)), MODEL, problems(2), verifier=verifier), "levels="),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, words):
    with pytest.raises(RedraftError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_trace_shows_the_drift_from_the_model():
    result = redraft.run(final(), MODEL, problems(ROWS), verifier=verifier, start=drawn(tilted()))
    values, expected = result.trace.by_draft("log_likelihood")[2], (tilted() * LAW.log()).sum()
    assert torch.equal(values, MODEL.log_likelihood(result.samples))
    assert abs(values.mean() - expected) < 4 * values.std() / len(values) ** 0.5
    assert abs(values.mean() - (LAW * LAW.log()).sum()) > 8 * values.std() / len(values) ** 0.5
