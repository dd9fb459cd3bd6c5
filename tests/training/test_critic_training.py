"""Critics trained where the truth is known: tokens that are independent of one another.

Every token has the same law p, of the data and of the denoiser, so a proposal says nothing of the level t that it was
drawn at: P(token v is wrong) = E[t] (1 - p(v)) with E[t] = (1 + 0.001) / 2. All of PRISM's are drawn: 1 - p(v).
"""

import math
from dataclasses import replace

import pytest
import torch

from redraft import RedraftError
from redraft.cli import main
from redraft.core.streams import Streams
from redraft.models.critic import BlocksCritic, HeadCritic, load_critics
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import Convention, TokenModel
from redraft.models.weights import save_network
from redraft.processes.categorical import Draw
from redraft.training import critic as training
from redraft.training.critic import Lesson, TrainCritic, corrupted, cross_entropy, judged, opinion, ranking, teach
from redraft.training.judgement import Judgement, auc, auc_alike, calibration, calibration_error
from redraft.training.loop import Schedule

LAW = torch.tensor([0.55, 0.25, 0.12, 0.06, 0.02])
WORDS, MASK, LENGTH = 5, 5, 10
MEAN_LEVEL = 0.5005
QUICK = Schedule(250, rate=0.05, warmup=20, average=0.98)


def independent():
    """The perfect model of independent tokens; its features say which token stands where."""
    logits = torch.cat([LAW.log(), torch.tensor([-torch.inf])])

    def forward(x, state):
        return logits.expand(*x.shape, WORDS + 1).clone(), torch.nn.functional.one_hot(x, WORDS + 1).float()

    return TokenModel("independent", forward, Convention(WORDS + 1, MASK), features=True)


def data(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(LAW, rows * LENGTH, replacement=True, generator=generator).view(rows, LENGTH)


def taught(reads="proposal", lesson=None, rows=2000, **settings):
    lesson = lesson or Lesson(**settings)
    model = teach(independent(), HeadCritic(WORDS + 1, WORDS + 1, reads), data(rows, 1), lesson, QUICK, 100)
    return model, lesson


def logits_of(model):
    """The critic's logit of each word."""
    linear = model.critics["critic"].linear
    return (linear.weight[0] + linear.bias).detach()[:WORDS]


def streams(rows, seed=0):
    return Streams.root(seed, torch.arange(rows))


@pytest.fixture(scope="module")
def star():
    return taught()


# What is learned


def test_a_critic_of_proposals_learns_the_probability_of_an_error(star):
    model, lesson = star
    assert (logits_of(model).sigmoid() - MEAN_LEVEL * (1 - LAW)).abs().max() < 0.04
    found = judged(model, lesson, data(2000, 2))
    assert abs(found.base_rate - MEAN_LEVEL * (1 - LAW.square().sum())) < 0.01
    assert calibration_error(found.bins) < 0.02
    assert found.auc > 0.6


def test_its_auc_is_the_best_there_is(star):
    """No function of the proposal finds more than the exact probabilities, which tell the words' order."""
    model, lesson = star
    wrong, right = LAW * (1 - LAW) * MEAN_LEVEL, LAW * (1 - MEAN_LEVEL * (1 - LAW))
    above = (wrong[:, None] * right * ((LAW[:, None] < LAW) + 0.5 * (LAW[:, None] == LAW))).sum()
    best = float(above / wrong.sum() / right.sum())
    found = judged(model, lesson, data(4000, 2))
    assert found.auc == pytest.approx(best, abs=0.015)
    assert found.auc_alike == pytest.approx(0.5, abs=1e-6)  # there is no context to tell equal tokens apart


def test_a_critic_of_states_learns_the_probability_of_an_error_of_what_was_drawn():
    model, lesson = taught("state", reveal=3)
    assert (logits_of(model).sigmoid() - (1 - LAW)).abs().max() < 0.04
    assert calibration_error(judged(model, lesson, data(2000, 2)).bins) < 0.02


def test_the_ranking_loss_learns_the_order():
    model, lesson = taught(loss="ranking")
    assert (logits_of(model).diff() > 0).all()
    assert judged(model, lesson, data(1000, 2)).auc > 0.6


class Shuffled(Lesson):
    """The same examples, with the labels of other rows."""

    def examples(self, *given):
        made = super().examples(*given)
        return replace(
            made,
            wrong=made.wrong.flatten()[torch.randperm(made.wrong.numel(), generator=self.dice)].view_as(made.wrong),
        )

    dice = torch.Generator().manual_seed(0)


def test_shuffled_labels_teach_nothing(star):
    """The negative control: neither does a critic of shuffled labels pass, nor a sound one against shuffled labels."""
    sound = star[0]
    misled, _ = taught(lesson=Shuffled())
    assert judged(misled, Shuffled(), data(2000, 2)).auc == pytest.approx(0.5, abs=0.015)
    assert judged(sound, Shuffled(), data(2000, 2)).auc == pytest.approx(0.5, abs=0.015)
    assert logits_of(misled).sub(logits_of(misled).mean()).abs().max() < 0.3 * logits_of(sound).diff().sum()


def test_a_colder_draw_errs_less():
    rates = [judged(*taught_nothing(temperature), data(500, 2)).base_rate for temperature in (0.0, 0.5, 1.0)]
    assert rates == sorted(rates)


def taught_nothing(temperature):
    model = independent().with_critic("critic", HeadCritic(WORDS + 1, WORDS + 1))
    return model, Lesson(Draw(temperature))


def test_the_same_seed_teaches_the_same_and_a_stopped_run_goes_on(tmp_path):
    short = replace(QUICK, steps=12, every=0)

    def run(checkpoint=None, steps=12):
        critic = HeadCritic(WORDS + 1, WORDS + 1)
        lesson = Cut(on_policy=True) if steps < 12 else Lesson(on_policy=True)
        Cut.left = steps
        teach(independent(), critic, data(64, 1), lesson, short, 16, checkpoint=checkpoint)
        return critic.linear.weight

    class Cut(Lesson):
        left = 0

        def examples(self, *given):
            Cut.left -= 1
            if Cut.left < 0:
                raise KeyboardInterrupt
            return super().examples(*given)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.safetensors", 7)
    whole = run()
    assert torch.equal(whole, run())
    assert torch.equal(whole, run(tmp_path / "c.safetensors"))


# What is shown


def with_word_critic(reads="proposal"):
    """A critic that suspects high ids."""
    critic = HeadCritic(WORDS + 1, WORDS + 1, reads)
    critic.linear.weight.data = torch.arange(WORDS + 1)[None].float()
    return independent().with_critic("critic", critic)


def test_levels_are_uniform_and_masks_are_as_many():
    noisy = corrupted(independent(), data(4000, 1), streams(4000))
    t = noisy.t[:, 0]
    assert (t.sort().values - torch.linspace(0, 1, 4000)).abs().max() < 1.95 / math.sqrt(4000)
    share = (noisy.x == MASK).float().mean(1)
    assert abs(float((share - t).mean())) < 0.01


def test_a_proposal_is_whole_and_its_labels_are_where_it_differs():
    clean = data(300, 1)
    made = Lesson().examples(with_word_critic(), clean, streams(300))
    assert (made.state.x != MASK).all()
    assert torch.equal(made.wrong, made.state.x != clean)
    assert not (made.wrong & ~made.redrawn).any()
    assert made.counted.all()
    assert (made.state.t == 0).all()
    expected = -LAW.log()[made.state.x]
    torch.testing.assert_close(made.surprise[made.redrawn], expected[made.redrawn])


@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize("reads", ["proposal", "state"])
def test_given_tokens_are_neither_masked_nor_counted(reads, on_policy):
    clean, given = data(300, 1), torch.rand(300, LENGTH, generator=torch.Generator().manual_seed(0)) < 0.4
    made = Lesson(on_policy=on_policy).examples(with_word_critic(reads), clean, streams(300), given)
    assert torch.equal(made.state.x[given], clean[given])
    assert not (made.counted & given).any()
    assert not (made.redrawn & given).any()


@pytest.mark.parametrize("reveal", [1, 3, 8])
def test_prism_counts_what_it_revealed_and_nothing_else(reveal):
    clean = data(500, 1)
    model = with_word_critic("state")
    made = Lesson(reveal=reveal).examples(model, clean, streams(500))
    noisy = corrupted(model, clean, streams(500))  # the state that the lesson began with
    masks = noisy.x == MASK
    assert torch.equal(made.counted.sum(1), masks.sum(1).clamp_max(reveal))
    assert torch.equal(made.counted, masks & (made.state.x != MASK))
    assert torch.equal(made.state.x[~made.counted], noisy.x[~made.counted])
    assert torch.equal(made.wrong[made.counted], (made.state.x != clean)[made.counted])


def test_which_masks_prism_reveals_is_up_to_chance():
    made = Lesson(reveal=1).examples(with_word_critic("state"), data(4000, 1), streams(4000))
    counts = made.counted.sum(0).double()
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 33.7  # chi-square with 9 degrees, once in 10 000


def test_on_policy_redraws_as_many_as_the_schedule_says_and_those_that_the_critic_suspects():
    clean = data(2000, 1)
    model, lesson = with_word_critic(), Lesson(on_policy=True)
    made = lesson.examples(model, clean, streams(2000))
    assert torch.equal(made.redrawn.sum(1), (made.level.double() * LENGTH).ceil().long())
    first = Lesson().examples(model, clean, streams(2000))
    assert torch.equal(made.state.x[~made.redrawn], first.state.x[~made.redrawn])
    assert torch.equal(made.wrong, made.state.x != clean)
    assert (made.level <= first.level).all()
    assert first.state.x[made.redrawn].double().mean() > first.state.x[~made.redrawn].double().mean() + 0.2


def test_the_critic_is_asked_as_in_sampling():
    model = with_word_critic()
    made = Lesson().examples(model, data(20, 1), streams(20))
    assert torch.equal(opinion(model, made), made.state.x.float())


def test_critics_of_blocks_are_trained_and_the_denoiser_is_not():
    net = Transformer(WORDS + 1, width=8, depth=2, heads=2).requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = TokenModel("net", lambda x, state: net(x), Convention(WORDS + 1, MASK), features=True, net=net)
    critic = BlocksCritic.copy(net, 1)
    assert all(value.requires_grad for value in critic.parameters())
    teach(model, critic, data(200, 1), Lesson(), replace(QUICK, steps=60, rate=0.01), 32)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not torch.equal(critic.net.embed.weight, before["embed.weight"])


# Losses and measures against brute force


@pytest.fixture
def judged_tokens():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 9, generator=generator)
    wrong, counted = (torch.rand(6, 9, generator=generator) < share for share in (0.4, 0.7))
    wrong[0], wrong[1] = True, False  # sequences without a pair
    return logits, wrong, counted


def test_the_ranking_loss_is_the_mean_over_pairs_then_over_sequences(judged_tokens):
    logits, wrong, counted = judged_tokens
    means = []
    for row in range(len(logits)):
        bad = [i for i in range(9) if counted[row, i] and wrong[row, i]]
        good = [j for j in range(9) if counted[row, j] and not wrong[row, j]]
        each = [math.log1p(math.exp(float(logits[row, j] - logits[row, i]))) for i in bad for j in good]
        means += [sum(each) / len(each)] if each else []
    assert 0 < len(means) < 6
    assert float(ranking(logits, wrong, counted)) == pytest.approx(sum(means) / len(means), rel=1e-6)


def test_cross_entropy_is_the_mean_over_counted_positions(judged_tokens):
    logits, wrong, counted = judged_tokens
    p = logits.sigmoid()
    each = -torch.where(wrong, p, 1 - p).log()
    assert float(cross_entropy(logits, wrong, counted)) == pytest.approx(float(each[counted].mean()), rel=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy, ranking])
def test_nothing_to_learn_from_is_a_loss_of_zero(loss):
    logits = torch.randn(2, 3, requires_grad=True)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss(logits, nothing, nothing).backward()
    assert (logits.grad == 0).all()


def test_auc_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (60,), generator=generator).float()  # with many ties
    positive = torch.rand(60, generator=generator) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive].tolist() for b in scores[~positive].tolist()]
    assert auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(-scores, positive) == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-12)
    assert auc(torch.zeros(60), positive) == 0.5
    assert math.isnan(auc(scores, torch.ones(60, dtype=torch.bool)))


def test_auc_among_equal_tokens_compares_no_others():
    generator = torch.Generator().manual_seed(0)
    scores, kinds = torch.randint(0, 6, (80,), generator=generator).float(), torch.arange(80) % 3
    positive = torch.rand(80, generator=generator) < 0.3
    each = list(zip(scores.tolist(), positive.tolist(), kinds.tolist(), strict=True))
    pairs = [(a > b) + 0.5 * (a == b) for a, p, k in each for b, q, m in each if p and not q and k == m]
    assert auc_alike(scores, positive, kinds) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(kinds.float(), kinds == 2) == 1
    assert auc_alike(kinds.float(), positive, kinds) == 0.5
    assert math.isnan(auc_alike(scores, kinds == 2, kinds))


def test_calibration_error_by_hand():
    probabilities = torch.tensor([0.05, 0.05, 0.25, 0.25, 0.25, 0.25, 0.95, 1.0])
    wrong = torch.tensor([False, False, True, False, False, False, True, False])
    bins = calibration(probabilities, wrong)
    assert [part.count for part in bins] == [2, 0, 4, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[9].predicted, bins[9].observed) == (pytest.approx(0.975), 0.5)
    # 2/8 |0.05 - 0| + 4/8 |0.25 - 0.25| + 2/8 |0.975 - 0.5|
    assert calibration_error(bins) == pytest.approx(0.0125 + 0.11875)


def test_a_judgement_tells_levels_apart():
    wrong = torch.tensor([True, False, True, False])
    levels = torch.tensor([0.1, 0.1, 0.9, 0.9])
    every = torch.ones(4, dtype=torch.bool)
    found = Judgement.of(torch.tensor([1.0, 0.0, 0.0, 1.0]), wrong, levels.long(), every, torch.zeros(4), levels)
    areas = [area for _, _, _, area in found.levels]
    assert (areas[0], areas[4], found.auc, found.auc_surprise) == (1, 0, 0.5, 0.5)
    assert math.isnan(areas[2])
    assert "| 0.0 to 0.2 | 0.500 | 1.000 |" in found.markdown()


# The recipe


class Boards:
    """A task of random boards that keep no rule."""

    def clean(self, rows, seed, split):
        generator = torch.Generator().manual_seed(seed + 100 * (split == "test"))
        return torch.randint(0, 9, (rows, 81), generator=generator)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny denoiser of boards, and a task for it."""
    net = Transformer(10, width=8, depth=2, heads=2, layout="board", passes=2)
    save_network(net, tmp_path / "tiny", "A card.", {"model": "sudoku-tokens"})
    monkeypatch.setattr(training, "load_task", lambda name: {"boards": Boards(), "other": object()}[name])
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("star", ["--on-policy"]),
        ("prism", ["--reads", "state"]),
        ("blocks", ["--blocks", "3", "--loss", "ranking", "--top-p", "0.9"]),
    ],
)
def test_the_command_trains_a_critic_that_its_model_finds(folder, capsys, name, options):
    out = folder / "critics" / name
    sizes = ["--steps", "3", "--batch", "2", "--rows", "8", "--evaluate", "4", "--device", "cpu"]
    argv = ["train", "critic", "--model", str(folder), "--task", "boards", "--out", str(out), *sizes, *options]
    assert main(argv) == 0
    assert "AUC over all" in capsys.readouterr().out
    assert list(load_critics(folder, "cpu")) == [name]
    card = (out / "README.md").read_text()
    assert "3 AdamW steps of 2 sequences" in card
    assert "expected calibration error" in card


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "tpu"}, "unknown preset 'tpu'"),
        ({"reads": "state", "blocks": 1}, "leave --blocks"),
        ({"reads": "state", "on_policy": True}, "--on-policy out"),
        ({"task": "other"}, "no method `clean`"),
        ({"model": "sudoku"}, "not a model of tokens"),
        ({"blocks": 9}, "1 to 4 to copy"),
        ({"reveal": 0}, "reveal is 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"top_p": 0.0}, "top_p is 0.0"),
    ],
)
def test_settings_without_a_meaning_are_one_sentence(folder, tmp_path, settings, message):
    given = {"model": str(folder), "task": "boards", "rows": 4, "evaluate": 2, "preset": "smoke", "device": "cpu"}
    with pytest.raises(RedraftError, match=message) as caught:
        TrainCritic(**given | settings, out=tmp_path / "out").run()
    assert "\n" not in str(caught.value)


def test_a_task_of_other_tokens_is_refused(tmp_path):
    with pytest.raises(RedraftError, match="the task 'python' has 64 tokens of ids up to"):
        TrainCritic(model="sudoku-tokens", task="python", out=tmp_path, rows=8, evaluate=8, device="cpu").run()
