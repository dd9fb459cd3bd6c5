"""The masked samplers: their counts, what they leave alone, what they cost, and what they refuse."""

from dataclasses import replace

import pytest
import torch
from tokens import CHAIN, ByToken, Fixed, after_one_step, exact_model, problems, walk_at

import redraft
from redraft import IPR, Budget, Generate, Parallel, RedraftError, Sequential, Unmask, preset
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.core.registry import SAMPLERS
from redraft.core.state import Draft, Prediction, State
from redraft.core.streams import Streams
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw
from redraft.processes.mask import Arccos, Cosine, Linear, Plateau, check_schedule
from redraft.samplers.budgets import EntropyBound, Even, OnSchedule, Proportional, Refresh, Remask, Threshold
from redraft.samplers.revising import Corrector
from redraft.samplers.rules import Rates, Rule
from redraft.samplers.scorers import Confidence, Entropy, Halton, Judge, Margin, Planner, Quality, halton_rank
from redraft.tasks.markov import Markov

TASK = Markov(length=16)
LONG = exact_model(TASK.chain, star=ByToken(0.0, vocabulary=7), prism=ByToken(0.0, "state", 7))
GREEDY = Draw(temperature=0)


def named(name, steps=8):
    return preset(name, steps=steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_preset_fills_every_mask_and_leaves_what_is_given(name):
    given = TASK.problems(6, given=0.4)
    result = redraft.run(Generate(named(name)), LONG, given)
    assert (result.samples < TASK.states).all()
    assert torch.equal(result.samples[given.frozen], given.x[given.frozen])
    assert result.trace["nfe"].max() <= Generate(named(name)).nfe(LONG, draft_of(given)).max()


def draft_of(given):
    return Draft(given.state())


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_alone_ends_as_in_a_batch(name):
    given = TASK.problems(5, given=0.3)
    whole = redraft.run(Generate(named(name)), LONG, given)
    for i in (0, 3):
        alone = redraft.run(Generate(named(name)), LONG, given[i : i + 1])
        assert torch.equal(alone.samples[0], whole.samples[i])
        assert alone.ledger.nfe[0] == whole.ledger.nfe[i]


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "halton"])  # a grid has no padding
def test_padding_on_the_left_changes_nothing(name):
    """Rows of different lengths in one batch, over a network that looks at every visible position."""
    torch.manual_seed(0)
    net = Transformer(12, 16, 2, 2).eval()

    def forward(x, state):
        logits, features = net(x, state.cond.get("visible"))
        return logits[..., :11] * 8, features

    padded = TokenModel(
        "padded", forward, Convention(12, 11), features=True,
        critics={"star": ByToken(0.0, vocabulary=12), "prism": ByToken(0.0, "state", 12)},
    )  # fmt: skip
    sampler = named(name)

    def sample(length, pad):
        x = torch.arange(length).remainder(11)[None]
        frozen = torch.arange(length)[None] < 2
        x, frozen = (torch.nn.functional.pad(v, (pad, 0), value=v.new_ones(()).item()) for v in (x, frozen))
        visible = torch.arange(length + pad)[None] >= pad
        return replace(problems(1, length + pad), x=x, frozen=frozen, cond={"visible": visible})

    alone = redraft.run(Generate(sampler), padded, sample(9, 0)).samples
    batch = type(sample(9, 0)).cat([sample(9, 4), replace(sample(13, 0), ids=torch.tensor([1]))])
    assert torch.equal(redraft.run(Generate(sampler), padded, batch).samples[0, 4:], alone[0])


def masks(sampler, x, step, token_model=LONG):
    return (after_one_step(sampler, token_model, x, step) == token_model.convention.mask).sum(1)


def all_masked(rows=3, length=16):
    return torch.full((rows, length), TASK.states)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(OnSchedule(), Confidence()), [13, 11, 9, 6, 4, 2, 0]),  # floor(16 (1 - k/7))
        (Rule(OnSchedule("ceil"), Confidence()), [14, 12, 10, 7, 5, 3, 0]),
        (Rule(Even(), Confidence()), [13, 10, 8, 6, 4, 2, 0]),  # 3, 3, 2, 2, 2, 2, 2
        (Rule(Proportional(), Entropy()), [14, 12, 10, 8, 6, 3, 0]),  # floor(m / (7 - k)) of the m masks there are
        (Rule(OnSchedule(left=1, least=1), Confidence()), [13, 11, 9, 6, 4, 2, 0]),
    ],
)
def test_counts_follow_their_schedules(rule, expected):
    sampler, x, found = Unmask(7, rule), all_masked(1), []
    for step in range(7):
        x = after_one_step(sampler, LONG, x, step)
        found.append(int((x == TASK.states).sum()))
    assert found == expected


def test_maskgit_reveals_at_least_one_token_a_step():
    sampler = preset("maskgit", steps=64)
    assert (masks(sampler, all_masked(), 0) == 15).all()
    assert (masks(replace(sampler, rule=Rule(OnSchedule(), Confidence())), all_masked(), 0) == 15).all()
    x = all_masked()
    x[:, :8] = 0
    assert (masks(Unmask(64, Rule(OnSchedule(least=1), Confidence())), x, 0) == 7).all()
    assert (masks(Unmask(64, Rule(OnSchedule(), Confidence())), x, 0) == 8).all()


def scripted(probabilities):
    """A model with the same distribution in every context: (R, V)."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log()

    def forward(x, state):
        full = torch.cat([logits, torch.full((len(logits), 1), -torch.inf)], 1)
        return full.expand(len(x), *full.shape).clone(), None

    return TokenModel("scripted", forward, Convention(logits.shape[1] + 1, logits.shape[1]), length=len(logits))


SCRIPT = scripted([[0.97, 0.02, 0.01], [0.5, 0.49, 0.01], [0.6, 0.2, 0.2], [0.92, 0.05, 0.03]])


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (Rule(Threshold(0.9), Confidence()), [False, True, True, False]),
        (Rule(Threshold(0.95), Confidence()), [False, True, True, True]),
        (Rule(Threshold(0.99), Confidence()), [False, True, True, True]),  # the surest at least
        (Rule(EntropyBound(0.0), Entropy()), [False, True, True, True]),
        (
            Rule(EntropyBound(0.2), Entropy()),
            [False, True, True, False],
        ),  # 0.154 before the second; 0.487 before the third
        (Rule(EntropyBound(0.5), Entropy()), [False, False, True, False]),  # then the one of entropy 0.742
        (Rule(EntropyBound(9.0), Entropy()), [False, False, False, False]),
        (Rule(Even(), Margin()), [False, True, True, True]),
        (Rule(Proportional(), Margin()), [False, True, True, True]),
    ],
)
def test_rules_take_the_surest(rule, left):
    sampler = Unmask(4, rule, draw=GREEDY)
    after = after_one_step(sampler, SCRIPT, torch.full((2, 4), 3), 0)
    assert (after == 3).tolist() == [left, left]
    assert (after[after != 3] == 0).all()


def test_margin_and_confidence_and_entropy_differ():
    """Position 0 has the largest margin, position 1 the likeliest token, position 2 the least entropy."""
    model = scripted([[0.55, 0.23, 0.22], [0.57, 0.42, 0.01], [0.5, 0.5 - 2e-6, 2e-6]])

    def first(scorer):
        after = after_one_step(Unmask(3, Rule(Even(), scorer), draw=GREEDY), model, torch.full((1, 3), 3), 0)
        return (after != 3)[0].nonzero().item()

    assert [first(s) for s in (Margin(), Confidence(), Entropy())] == [0, 1, 2]


def test_the_planner_doubts_revealed_tokens_by_raw_logits():
    """An unlikely token that is there gives way; with eta 0 none does."""
    x = torch.tensor([[2, 3, 0, 0]])
    for eta, masked in ((1.0, [0]), (0.0, [1])):
        rule = Rule(OnSchedule(), Planner(eta), joint=True)
        after = after_one_step(Unmask(4, rule, draw=GREEDY), SCRIPT, x, 2)
        assert (after == 3)[0].nonzero()[:, 0].tolist() == masked


def test_carried_logits_are_refused_where_raw_ones_are_needed():
    carried = replace(SCRIPT, convention=replace(SCRIPT.convention, carried=True))
    with pytest.raises(RedraftError, match="raw logits"):
        redraft.run(Generate(preset("p2", steps=4)), carried, problems(1))


def test_a_critic_sees_the_whole_proposal():
    seen = []

    class Watching(Fixed):
        def __call__(self, x, features):
            seen.append(x)
            return super().__call__(x, features)

    model = exact_model(star=Watching([0.0] * 4))
    after_one_step(Unmask(4, Rule(OnSchedule("ceil"), Judge("star"), joint=True)), model, torch.full((2, 4), 2), 1)
    assert (seen[0] < 2).all()


def test_prism_masks_the_worst_and_reveals_as_many_more():
    x = torch.tensor([[0, 1, 1, 2, 2, 2, 2, 2]])
    rule = Rule(Refresh(number=1), Quality("c"))
    model = exact_model(replace(CHAIN, length=8), c=Fixed([0, 5, 1, 9, 9, 9, 9, 9], "state"))
    after = after_one_step(Unmask(8, rule), model, x, 3)
    assert after[0, 1] == 2
    assert (after == 2).sum() == 4


def test_remdm_s_confidence_masks_at_most_one_token_a_step_on_average():
    x = torch.zeros(4000, 16, dtype=torch.int64)
    x[:, 8:] = TASK.states
    walk, streams = walk_at(Unmask(32, Rule(Remask("confidence"))), LONG, x, 16)
    walk = replace(walk, confidence=torch.linspace(-3, 2.9, 16).clamp_max(-0.05).double().expand(4000, 16))
    masked = (Unmask(32, Rule(Remask("confidence"))).step(LONG, walk, streams).state.x == TASK.states)[:, :8]
    assert 0.9 < masked.sum(1).double().mean() < 1.0
    assert masked[:, 0].sum() > 1.2 * masked[:, 7].sum()  # the least sure first


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Arccos(), Plateau(), Plateau(0.3, 0.1, 0.7)])
def test_schedules_fall_from_one_to_zero(schedule):
    check_schedule(schedule)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    if isinstance(schedule, Plateau):
        inside = (t <= schedule.on - 1e-9) & (t >= schedule.off)
        assert (schedule.kept(t)[inside] == schedule.kept_on).all()


def test_schedules_that_do_not_are_refused():
    class Rising:
        def kept(self, t):
            return t

    class Wavy:
        def kept(self, t):
            return 1 - t + 0.2 * (12 * t).sin() * t * (1 - t)

    with pytest.raises(RedraftError, match="keep all at t = 0"):
        Unmask(schedule=Rising())
    Wavy.kept = lambda self, t: (1 - t + 0.4 * (12.566 * t).sin() * (t < 0.999) * (t > 1e-3)).clamp(0, 1)
    with pytest.raises(RedraftError, match="never keep more"):
        Unmask(schedule=Wavy())


def test_halton_orders_a_grid_evenly():
    rank = halton_rank(8, 8)
    assert sorted(rank.tolist()) == list(range(64))
    first = [(4, 2), (2, 5), (6, 0), (1, 3), (5, 6)]  # 8 (1/2, 1/4, ...) and 8 (1/3, 2/3, 1/9, ...)
    assert [rank.view(8, 8)[cell] for cell in first] == list(range(5))
    assert halton_rank(24, 24)[0] == 522
    with pytest.raises(RedraftError, match="grid"):
        redraft.run(Generate(Unmask(4, Rule(OnSchedule(least=1), Halton()))), LONG_15, TASK_15.problems(1))


TASK_15 = Markov(length=15)
LONG_15 = TASK_15.model


def test_blocks_are_finished_from_the_left():
    sampler, x = preset("llada", steps=8, block=4), all_masked(1)
    for step, masked in enumerate([14, 12, 10, 8, 6, 4, 2, 0]):
        x = after_one_step(sampler, LONG, x, step)
        assert (x == TASK.states).sum() == masked
        assert (x[:, : 4 * ((step + 1) // 2)] != TASK.states).all()
        assert (x[:, 4 * (step // 2) + 4 :] == TASK.states).all()


def test_aligned_blocks_are_counted_from_the_first_token_that_is_no_padding():
    """Two tokens of padding, three of prompt: with blocks of four the first mask is the last of the first block."""
    x = torch.full((1, 12), TASK.states)
    state = State(
        x,
        (torch.arange(12) >= 5)[None].float(),
        (torch.arange(12) < 5)[None],
        torch.arange(1),
        {"visible": (torch.arange(12) >= 2)[None]},
    )
    for aligned, expected in ((True, [0, 1, 1, 1, 1, 2, 2]), (False, [0, 0, 0, 0, 1, 1, 1])):
        walk = Unmask(12, block=4, aligned=aligned).init(LONG, state, None)
        assert walk.block[0, 5:].tolist() == expected
        assert walk.steps.tolist() == [12]
        assert walk.per_block.tolist() == [4 if aligned else 6]
        assert (Unmask(12, block=4, aligned=aligned).nfe(torch.tensor([7])) >= 12).all()


class TestCost:
    """What is spent and what is saved."""

    def test_rows_that_do_not_change_are_not_evaluated_again(self):
        """Of T = 1000 steps over 128 tokens, at most 13 % need the network: those at which a token is revealed."""
        task = Markov(length=128)
        result = redraft.run(Generate(preset("ancestral", steps=1000)), task.model, task.problems(2))
        assert (result.ledger.nfe <= 130).all()
        assert (result.ledger.nfe > 100).all()
        assert (result.ledger.saved["denoiser"] > 800).all()
        timed = redraft.run(Generate(preset("ancestral", steps=60)), replace(LONG, timeless=False), TASK.problems(2))
        assert (timed.ledger.nfe > 30).all()
        assert timed.ledger.saved["denoiser"].sum() == 0

    def test_reuse_changes_no_sample(self):
        given = TASK.problems(4)
        for name in ("ancestral", "p2", "maskgit", "remdm-cap"):
            one, other = (
                redraft.run(Generate(replace(preset(name, steps=40), reuse=reuse)), LONG, given).samples
                for reuse in (True, False)
            )
            assert torch.equal(one, other)

    def test_equal_rows_are_evaluated_once_and_each_problem_pays_for_its_own(self):
        rows = []

        def forward(x, state):
            rows.append(len(x))
            return LONG.forward(x, state)

        model = replace(LONG, forward=forward)
        result = redraft.run(Generate(Unmask(1)), model, TASK.problems(5))
        assert rows == [1]
        assert result.ledger.nfe.tolist() == [1] * 5
        ledger, state = Ledger(2), TASK.problems(2).state()
        noisy = model.process.prior(state, state.free, None)[torch.tensor([0, 0, 1])]
        prediction = CountedModel(model, ledger).predict(noisy)
        assert prediction.logits.shape[0] == 3
        assert ledger.nfe.tolist() == [1, 1]
        assert ledger.saved["denoiser"].tolist() == [1, 0]

    def test_a_critic_s_passes_count(self):
        given = TASK.problems(3)
        result = redraft.run(Generate(preset("g-star+", steps=20)), LONG, given)
        assert (result.ledger.spent["critic"] == 6 - 1).all()  # levels 0.3, 0.25, ..., 0.05, and none at the last step
        assert (result.ledger.nfe == result.ledger.spent["denoiser"] + 5).all()
        assert Generate(preset("g-star+", steps=20)).nfe(LONG, draft_of(given)).tolist() == [25] * 3
        prism = redraft.run(Generate(preset("prism", steps=20)), LONG, given)
        assert prism.ledger.spent["critic"].sum() == 0

    def test_a_budget_too_small_is_refused(self):
        with pytest.raises(RedraftError, match="25 NFE"):
            redraft.run(Generate(preset("g-star+", steps=20)), LONG, TASK.problems(1), budget=Budget(nfe=24))

    def test_an_early_end_costs_no_more(self):
        sure = scripted([[0.99, 0.005, 0.005]] * 6)
        result = redraft.run(Generate(preset("threshold", steps=6)), sure, problems(2, 6))
        assert result.ledger.nfe.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Unmask(0), "steps is 0"),
        (lambda: Unmask(on=0.2, off=0.5), "off is 0.5 and on 0.2"),
        (lambda: Unmask(block=0), "block is 0"),
        (lambda: Remask("cap", 1.5), "eta is 1.5"),
        (lambda: Remask("caps"), "unknown sigma 'caps'; did you mean 'cap'"),
        (lambda: Plateau(0.1, 0.5), "off is 0.5 and on 0.1"),
        (lambda: Plateau(kept_on=1.0), "kept_on is 1.0"),
        (lambda: Corrector(0.0), "size"),
        (lambda: Draw(top_p=0), "top_p is 0"),
        (lambda: Draw(temperature=-1), "temperature is -1"),
        (lambda: Draw(nucleus="top"), "unknown nucleus 'top'"),
        (lambda: preset("g-starr"), "g-star"),
        (lambda: Convention(10, 10), "mask id 10 is outside the vocabulary of 10"),
        (lambda: Convention(10, 9, forbidden=(12,)), "forbidden id 12"),
        (lambda: exact_model().with_critic("c", Fixed([0.0], vocabulary=50)), "vocabulary of 50"),
        (lambda: redraft.run(Generate(preset("g-star+")), exact_model(), problems(1)), "critic:star"),
        (
            lambda: redraft.run(Generate(preset("star")), exact_model(), problems(1, given=range(4))),
            "every region frozen",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, words):
    with pytest.raises(RedraftError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


class Wild:
    """A budget of a user's own."""

    revises = True

    def __call__(self, now):
        return Rates(torch.full_like(now.kept, 0.5), torch.full_like(now.kept, 1.2))


def test_a_sigma_out_of_bounds_is_told():
    with pytest.raises(RedraftError, match=r"sigma.*out of bounds: 1.2"):
        redraft.run(Generate(Unmask(4, Rule(Wild()))), LONG, TASK.problems(1))


def test_a_state_without_masks_is_told():
    state = TASK.problems(1).state()
    with pytest.raises(RedraftError, match="no mask"):
        Unmask(4).init(LONG, state, None)


def test_nan_in_the_logits_is_told():
    def forward(x, state):
        logits = LONG.forward(x, state)[0]
        logits[0, 3, 2] = torch.nan
        return logits, None

    with pytest.raises(RedraftError, match="NaN or infinity"):
        redraft.run(Generate(Unmask(4)), replace(LONG, forward=forward), TASK.problems(2))


def test_nothing_masked_is_nothing_to_do():
    state = State(torch.zeros(2, 4).long(), torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool), torch.arange(2))
    after = redraft.samplers.sample(Unmask(4), exact_model(), state, Streams.root(0, torch.arange(2)))
    assert torch.equal(after.x, state.x)


def test_halton_is_exact_where_thirds_meet_the_grid():
    """Number 5 is 12 in base 3, mirrored 7/9: the eighth of 9 columns, where floats give the seventh."""
    rank = halton_rank(1, 9).tolist()
    thirds = [3, 6, 1, 4, 7, 2, 5, 8, 0]  # ninths 1/3, 2/3, 1/9, 4/9, 7/9, ..., and 1/27 in the first
    assert [thirds.index(cell) for cell in range(9)] == rank


def test_masks_that_are_there_are_revealed_evenly_where_a_walk_begins_half_way():
    """Of 16 positions 8 are masked, and 8 steps are left: one a step, and not two for 4 steps."""
    x = torch.where(torch.arange(16) % 2 == 0, TASK.states, 0)[None]
    assert masks(Unmask(8, Rule(Even(), Confidence())), x, 0).tolist() == [7]
    assert masks(Unmask(8, Rule(Even(), Confidence())), x, 4).tolist() == [6]


def test_scattered_masks_cost_no_more_than_blocks_say():
    """Blocks counted from the first token: 8 masks among 64 would be in 8 blocks of 8, and 1 is paid for."""
    sampler = Unmask(4, Rule(Threshold(0.999), Confidence()), block=8, aligned=True)
    task = Markov(length=64)
    given = replace(task.problems(4), frozen=torch.arange(64) % 8 != torch.arange(4)[:, None])
    result = redraft.run(Generate(sampler), task.model, given)
    assert (result.ledger.nfe <= Generate(sampler).nfe(task.model, draft_of(given))).all()
    whole = replace(task.problems(4), frozen=torch.arange(64) < torch.tensor([0, 3, 8, 13])[:, None])
    result = redraft.run(Generate(sampler), task.model, whole)
    assert (result.ledger.nfe <= Generate(sampler).nfe(task.model, draft_of(whole))).all()


def test_a_window_s_edge_is_where_the_cost_has_it():
    """The levels of a walk from 0.3, which float32 does not hold, meet the window's edge 0.05 at step 10 of 12."""
    method = IPR(3, 0.5, level=0.3, initial=preset("ancestral", steps=4), refine=preset("g-star-loop", steps=12))
    model = exact_model(TASK.chain, star=ByToken(0.0, vocabulary=TASK.states + 1))
    given = TASK.problems(8)
    result = redraft.run(method, model, given, budget=Budget(nfe=26))
    assert (result.ledger.nfe <= 26).all()


@pytest.mark.parametrize(("name", "reads"), [("g-star+", "proposal"), ("prism", "state")])
def test_a_critic_that_gives_no_numbers_is_one_sentence(name, reads):
    critics = {"star" if reads == "proposal" else "prism": Fixed(torch.nan, reads, TASK.states + 1)}
    model = exact_model(TASK.chain, **critics)
    with pytest.raises(RedraftError, match="gave NaN or infinity"):
        redraft.run(Generate(preset(name, steps=16)), model, TASK.problems(2))


class Narrow(Fixed):
    """A critic that says one thing of a row."""

    def __call__(self, x, features):
        return torch.zeros(len(x), 1)


def test_a_critic_of_another_shape_is_one_sentence():
    model = exact_model(TASK.chain, star=Narrow(0.0, vocabulary=TASK.states + 1))
    with pytest.raises(RedraftError, match=r"critic 'star' gave shape \(2, 1\) for tokens of shape \(2, 16\)"):
        redraft.run(Generate(preset("g-star+", steps=16)), model, TASK.problems(2))


def test_heun_needs_a_velocity():
    with pytest.raises(RedraftError, match="set order=1"):
        redraft.run(Generate(Parallel(4, order=2)), LONG, TASK.problems(1))


def test_a_sequential_walk_does_not_see_padding():
    def forward(x, state):
        return torch.zeros(*x.shape, 7), None

    model = TokenModel("flat", forward, Convention(7, 6))
    sampler = Sequential(1, order="random", stochasticity=0.0)

    def sample(pad):
        frozen = torch.arange(6 + pad)[None] < 2 + pad
        cond = {"visible": torch.arange(6 + pad)[None] >= pad}
        return replace(problems(1, 6 + pad), frozen=frozen, cond=cond)

    alone, padded = (redraft.run(Generate(sampler), model, sample(pad)).samples[0, pad:] for pad in (0, 3))
    assert torch.equal(alone, padded)


def test_a_word_that_cannot_come_does_not_in_float32_either(monkeypatch):
    """A uniform number so near 1 that float32 rounds it to 1: the last word, of weight 0, must not be drawn."""
    monkeypatch.setattr(Streams, "uniform", lambda *_: torch.tensor([1 - 2.0**-26], dtype=torch.float64))
    logits = torch.tensor([[[0.0, 1.0, 2.0, -torch.inf]]])
    where = torch.ones(1, 1, dtype=torch.bool)
    for dtype in ("float32", "float64"):
        drawn = Draw(dtype=dtype)(Prediction(torch.zeros(1, 1), logits=logits), where, Streams.root(0, torch.arange(1)))
        assert drawn.tokens.tolist() == [2]


@pytest.mark.parametrize(
    ("token", "words"),
    [(TASK.states, "start holds masks"), (TASK.states + 1, "has tokens 0 to 6, not the token 7"), (0.5, "float32")],
)
def test_a_start_of_tokens_that_are_none_is_one_sentence(token, words):
    start = torch.full((2, 16), token)
    with pytest.raises(RedraftError, match=words):
        redraft.run(IPR(1), LONG, TASK.problems(2), start=start)


def test_p2_without_its_factor_masks_nothing_again():
    """Even where the network rules a revealed token out, whose log p is then minus infinity."""

    def forward(x, state):
        other, logits = x.unflatten(1, (-1, 2)).flip(2).flatten(1), torch.zeros(*x.shape, 3)
        logits[..., 0][other == 1] = -torch.inf
        logits[..., 1][other == 0] = -torch.inf
        return logits, None

    model = TokenModel("pairs", forward, Convention(3, 2), length=6)
    again = {
        eta: redraft.run(Generate(preset("p2", steps=4, eta=eta)), model, problems(400, 6)).trace["redraws"].sum()
        for eta in (0.0, 2.0)
    }
    assert again[0.0] == 0 < again[2.0]
