"""Metrics of sets against closed forms, scipy and loops, with negative controls; oracles against brute force."""

import math
import sys
import types

import pytest
import torch
from checks import FALSE_ALARM
from scipy.linalg import sqrtm
from toys import toy_problems

import redraft
from redraft import RedraftError
from redraft.samplers import Parallel
from redraft.testing import check_verifier
from redraft.verifiers import VerifierError, sets
from redraft.verifiers.sets import (
    FIDOracle,
    ISOracle,
    Statistics,
    features_of,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    root_gain,
    vendi_score,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(pictures):
    """Features that are the pixels themselves."""
    return pictures.flatten(1)


# ---- statistics and distances


def test_statistics_are_those_of_torch_and_join_exactly():
    x = normal(40, 5)
    whole = Statistics.of(x)
    torch.testing.assert_close(whole.covariance, x.T.cov())
    joined = Statistics.of(x[:7]).joined(Statistics.of(x[7:]))
    torch.testing.assert_close(joined.mean, whole.mean)
    torch.testing.assert_close(joined.covariance, whole.covariance)
    assert joined.count == 40


def test_statistics_are_kept_in_a_file(tmp_path):
    one = Statistics.of(normal(9, 3))
    one.save(tmp_path / "s.safetensors")
    other = Statistics.load(tmp_path / "s.safetensors")
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.covariance, other.covariance)
    assert other.count == 9
    (tmp_path / "t.safetensors").write_text("no")
    with pytest.raises(RedraftError, match="holds no statistics"):
        Statistics.load(tmp_path / "t.safetensors")


def test_gaussians_whose_distance_is_known():
    one = Statistics(torch.tensor([0.0, 1.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double(), 9)
    two = Statistics(torch.tensor([3.0, 5.0]).double(), torch.diag(torch.tensor([1.0, 16.0])).double(), 9)
    assert frechet_distance(one, two) == pytest.approx(25 + (2 - 1) ** 2 + (3 - 4) ** 2)
    assert frechet_distance(two, one) == pytest.approx(27)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)


def test_covariances_that_do_not_commute_are_as_by_scipy():
    x, y = normal(50, 6) @ normal(6, 6, seed=1), normal(30, 6, seed=2) @ normal(6, 6, seed=3) + 0.5
    a, b = (Statistics.of(each) for each in (x, y))
    apart = a.mean - b.mean
    cross = sqrtm((a.covariance @ b.covariance).numpy()).real
    expected = float(apart @ apart + (a.covariance + b.covariance).trace() - 2 * cross.trace())
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    wrong = float(apart @ apart + (a.covariance.sqrt().nan_to_num() - b.covariance.sqrt().nan_to_num()).square().sum())
    assert abs(wrong - expected) > 0.1  # as if covariances were taken element by element


def test_fewer_samples_than_features_have_a_distance():
    x, y = normal(5, 12), normal(6, 12, seed=1)
    a, b = (Statistics.of(each).covariance for each in (x, y))
    values = torch.linalg.eigvals(a @ b).real.clamp_min(0)
    expected = float((x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * values.sqrt().sum())
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-5)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-5)


def test_the_kernel_distance_is_the_mean_over_pairs_and_unbiased():
    x, y = normal(5, 3), normal(4, 3, seed=1)

    def k(a, b):
        return float((a @ b / 3 + 1) ** 3)

    same = [k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    other = [k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    cross = [k(a, b) for a in x for b in y]
    means = [sum(each) / len(each) for each in (same, other, cross)]
    assert kernel_distance(x, y) == pytest.approx(means[0] + means[1] - 2 * means[2])
    draws = torch.tensor([kernel_distance(normal(6, 3, seed=s), normal(6, 3, seed=s + 5000)) for s in range(2000)])
    z = float(draws.mean() / (draws.std() / len(draws) ** 0.5))
    assert math.erfc(abs(z) / 2**0.5) > FALSE_ALARM
    shifted = torch.tensor([kernel_distance(normal(6, 3, seed=s), normal(6, 3, seed=s + 5000) + 1) for s in range(200)])
    assert shifted.mean() > 1


# ---- diversity


def test_the_inception_score_of_known_probabilities():
    sure = torch.eye(4).repeat(3, 1)
    assert inception_score(sure) == pytest.approx(4)
    assert inception_score(torch.full((6, 4), 0.25)) == pytest.approx(1)
    assert inception_score(sure[:1].repeat(5, 1)) == pytest.approx(1)  # sure of one class only
    half = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double()
    expected = math.exp(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    assert inception_score(half) == pytest.approx(expected)
    with pytest.raises(RedraftError, match="apply a softmax"):
        inception_score(normal(4, 4))


def by_hand(x, y, k):
    """The share of x within the k-th neighbour's distance of some y."""
    radius = [sorted(float((a - b).norm()) for j, b in enumerate(y) if j != i)[k - 1] for i, a in enumerate(y)]
    return sum(any((a - b).norm() <= r for b, r in zip(y, radius, strict=True)) for a in x) / len(x)


@pytest.mark.parametrize("rows", [4, 1024])
def test_precision_and_recall_are_those_of_a_loop(rows):
    x, y = normal(25, 3), 1.5 * normal(20, 3, seed=1) + 0.5
    for k in (1, 3):
        assert precision_recall(x, y, k, rows) == pytest.approx((by_hand(x, y, k), by_hand(y, x, k)))
    assert by_hand(x, y, 1) < by_hand(x, y, 3)


def test_precision_without_recall_and_the_other_way_round():
    wide = torch.cat([normal(30, 2), normal(30, 2, seed=1) + 100])
    narrow = normal(40, 2, seed=2)
    precision, recall = precision_recall(narrow, wide)
    assert precision > 0.9
    assert recall <= 0.5
    assert precision_recall(wide, narrow) == (recall, precision)
    assert precision_recall(narrow, narrow) == (1, 1)
    assert precision_recall(narrow, narrow + 1000) == (0, 0)


def test_the_vendi_score_counts_different_samples():
    assert vendi_score(torch.eye(7)) == pytest.approx(7)
    assert vendi_score(torch.eye(7)[:1].repeat(5, 1)) == pytest.approx(1)
    groups = torch.eye(9)[[0, 0, 0, 1, 1, 1, 2, 2, 2]] * torch.arange(1, 10)[:, None]  # lengths do not matter
    assert vendi_score(groups) == pytest.approx(3)
    x = normal(12, 4)
    unit = x / x.norm(dim=1, keepdim=True)
    share = torch.linalg.eigvalsh(unit @ unit.T / 12).clamp_min(1e-300)
    assert vendi_score(x) == pytest.approx(float((-(share * share.log()).sum()).exp()))
    assert vendi_score(x[:3]) == pytest.approx(vendi_score(torch.cat([x[:3], torch.zeros(3, 9)], 1)))
    with pytest.raises(RedraftError, match="are all 0"):
        vendi_score(torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(normal(1, 3), normal(4, 3)), "2 or more"),
        (lambda: frechet_distance(normal(4), normal(4, 3)), r"features are \(N, D\)"),
        (lambda: frechet_distance(normal(4, 2), normal(4, 3)), "width 2 and 3"),
        (lambda: kernel_distance(normal(4, 2), normal(4, 3)), "width 2 and 3"),
        (lambda: precision_recall(normal(4, 2), normal(5, 3)), "width 2 and 3"),
        (lambda: frechet_distance(normal(4, 2) * math.nan, normal(4, 2)), "NaN or infinity"),
        (lambda: precision_recall(normal(3, 2), normal(9, 2)), "4 or more"),
        (lambda: precision_recall(normal(9, 2), normal(9, 2), k=0), "k is 0"),
    ],
)
def test_what_is_no_set_of_features_is_refused(call, words):
    with pytest.raises(RedraftError, match=words):
        call()


def test_features_are_taken_in_order_and_in_parts():
    seen = []

    def network(pictures):
        seen.append(len(pictures))
        return pictures.flatten(1)[:, :2]

    pictures = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(features_of(network, pictures, rows=4), pictures.flatten(1)[:, :2].double())
    assert seen == [4, 4, 2]


# ---- oracles


@pytest.mark.parametrize(("n", "width"), [(40, 4), (3, 12)])
def test_the_oracle_is_minus_the_distance_of_the_set_with_the_sample_added(n, width):
    reference, running = normal(50, width) @ normal(width, width, seed=1), normal(n, width, seed=2) + 0.3
    oracle = FIDOracle(flat, Statistics.of(reference), Statistics.of(running))
    candidates = 4 * normal(6, width, seed=3)
    grown = [frechet_distance(torch.cat([running, row[None]]), reference) for row in candidates]
    assert oracle.distances(candidates).tolist() == pytest.approx(grown, rel=1e-6)
    assert len({round(each, 2) for each in grown}) == 6


def test_the_root_of_a_matrix_that_grew_by_a_vector():
    values, z = normal(8).square(), 3 * normal(5, 8, seed=1)
    direct = [torch.linalg.eigvalsh(torch.diag(values) + torch.outer(row, row)).sqrt().sum() for row in z]
    torch.testing.assert_close(root_gain(values, z), torch.stack(direct) - values.sqrt().sum(), rtol=0, atol=1e-12)
    torch.testing.assert_close(root_gain(values * 0, z), z.norm(dim=1), rtol=1e-12, atol=0)
    assert root_gain(values * 0, z * 0).tolist() == [0] * 5
    tiny = 1e-9 * z
    torch.testing.assert_close(root_gain(values * 1e-18, tiny), 1e-9 * root_gain(values, z), rtol=1e-12, atol=0)


def test_the_oracle_is_a_verifier_and_its_set_grows_by_add_alone():
    pictures = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    reference = Statistics.of(flat(torch.rand(40, 3, 2, 2, generator=torch.Generator().manual_seed(2)).double()))
    oracle = FIDOracle(flat, reference, Statistics.of(flat(pictures[:6].double())), rows=2)
    problems = toy_problems([0] * 6)
    check_verifier(oracle, pictures[6:], problems)
    first = oracle(pictures[6:], problems)
    assert torch.equal(oracle(pictures[6:], problems), first)
    best = int(first.argmax())
    oracle.add(pictures[6 + best][None])
    together = torch.cat([pictures[:6], pictures[6 + best][None]]).double()
    assert -frechet_distance(flat(together), reference) == pytest.approx(float(first[best]), rel=1e-6)
    then = torch.cat([flat(together), flat(pictures[7][None].double())])
    assert float(oracle(pictures[7][None], problems[:1])) == pytest.approx(-frechet_distance(then, reference), rel=1e-6)


def test_what_is_added_is_what_was_scored():
    pictures = 3 * torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(7)) - 1
    grey, video = pictures[:1, :1], pictures[None, :3]
    for sample in (pictures[:1], grey, grey[:, 0], video):
        oracle = FIDOracle(flat, Statistics.of(normal(50, 12)), Statistics.of(flat(pictures.double())))
        score = float(oracle(sample, toy_problems([0])))
        oracle.add(sample)
        assert -frechet_distance(oracle.running, oracle.reference) == pytest.approx(score, rel=1e-6)


def test_greedy_choice_by_the_oracle_beats_chance():
    reference = Statistics.of(0.5 + 0.5 * normal(400, 3))
    pool = torch.rand(60, 4, 3, 1, 1, generator=torch.Generator().manual_seed(5)).double()
    oracle = FIDOracle(flat, reference, Statistics.of(flat(pool[:4, 0])))
    chosen = [*pool[:4, 0]]
    for candidates in pool[4:]:
        best = int(oracle.distances(flat(candidates)).argmin())
        oracle.add(candidates[best][None])
        chosen.append(candidates[best])
    by_chance = frechet_distance(flat(pool[:, 0]), reference)
    assert frechet_distance(flat(torch.stack(chosen)), reference) < 0.6 * by_chance


def test_an_oracle_needs_a_set_to_begin_with():
    some = Statistics.of(normal(5, 3))
    with pytest.raises(RedraftError, match="begin with some samples"):
        FIDOracle(flat, some, Statistics(some.mean, some.covariance, 1))
    with pytest.raises(RedraftError, match="width 3 and 2"):
        FIDOracle(flat, some, Statistics.of(normal(5, 2)))
    oracle = FIDOracle(flat, some, some)
    with pytest.raises(VerifierError, match="was given NaN or infinity .sample number 1"):
        oracle(torch.tensor([0.0, math.nan]).reshape(2, 1, 1, 1).expand(2, 3, 1, 1), toy_problems([0, 0]))


def class_problems(labels, where="facts", name="label"):
    problems = toy_problems([0] * len(labels))
    getattr(problems, where)[name] = labels
    return problems


@pytest.mark.parametrize(
    ("where", "name", "labels"),
    [
        ("facts", "label", torch.tensor([0, 2, 1])),
        ("cond", "class_labels", torch.tensor([0, 2, 1])),
        ("cond", "label", torch.tensor([0, 2, 1])),
        ("facts", "prompt", [0, 2, 1]),
    ],
)
def test_the_oracle_of_the_inception_score_is_the_log_probability_of_the_class(where, name, labels):
    pictures = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    problems = class_problems(labels, where, name)
    oracle = ISOracle(lambda x: 5 * x.mean((2, 3)))
    expected = (5 * pictures.mean((2, 3))).double().log_softmax(1)[[0, 1, 2], [0, 2, 1]]
    assert oracle(pictures, problems).tolist() == pytest.approx(expected.tolist())
    check_verifier(oracle, pictures, problems)


def test_a_class_that_there_is_not_is_refused():
    pictures = torch.rand(2, 3, 2, 2)
    with pytest.raises(RedraftError, match="outside of 0 to 2"):
        ISOracle(lambda x: x.mean((2, 3)))(pictures, class_problems(torch.tensor([0, 3])))
    with pytest.raises(RedraftError, match="name no class"):
        ISOracle(lambda x: x.mean((2, 3)))(pictures, toy_problems([0, 0]))
    with pytest.raises(RedraftError, match="name no class"):
        ISOracle(lambda x: x.mean((2, 3)))(pictures, class_problems(["a cat", "a dog"], name="prompt"))


# ---- Inception


def test_inception_needs_torch_fidelity(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    with pytest.raises(RedraftError, match="pip install torch-fidelity, or give another network"):
        sets.inception()


def test_inception_is_given_8_bits(monkeypatch):
    class Extractor(torch.nn.Module):
        def __init__(self, name, outputs):
            super().__init__()
            self.outputs, self.weight = outputs, torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            assert x.dtype == torch.uint8
            return (x.float().mean((2, 3)),)

    home = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    home.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", home)
    pictures = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(4, 1, 1, 1)
    assert sets.inception(device="cpu")(pictures)[:, 2].tolist() == [0, 128, 255, 255]


def test_a_run_can_be_searched_by_an_oracle():
    from toys import Toy

    class Pictures(Toy):
        def decode(self, x):
            return (x[:, :3, :1, None] / 4 + 0.5).clamp(0, 1)

    problems, model = toy_problems([0, 0]), Pictures()
    reference = Statistics.of(0.7 + 0.05 * normal(50, 3))
    oracle = FIDOracle(flat, reference, Statistics.of(0.3 + 0.05 * normal(5, 3, seed=1)))
    result = redraft.run(redraft.BestOfN(n=4, sampler=Parallel(4)), model, problems, verifier=oracle, progress=False)
    alone = redraft.run(redraft.BestOfN(n=1, sampler=Parallel(4)), model, problems, verifier=oracle, progress=False)
    gain = oracle(result.samples, problems) - oracle(alone.samples, problems)
    assert (gain >= 0).all()
    assert gain.sum() > 0
    assert result.ledger.verifier_calls.tolist() == [4, 4]
