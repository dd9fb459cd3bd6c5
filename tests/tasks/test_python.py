"""Lines of Python: what is a line, which are held out, and what each metric sees."""

import ast
import math
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from redraft import RedraftError
from redraft.models import characters
from redraft.models.characters import LENGTH, MASK, PAD, decode, encode
from redraft.models.nets.transformer import Transformer
from redraft.models.reference import load_reference
from redraft.models.weights import save_network
from redraft.tasks import python
from redraft.tasks.python import Python, diversity, frontier_area, lines


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A judge of random weights."""
    folder = tmp_path_factory.mktemp("judge")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(characters.VOCABULARY, 16, 1, 2, causal=True)
    torch.nn.init.normal_(net.head.weight)
    save_network(net, folder, "A card.")
    return str(folder)


@pytest.fixture(scope="module")
def task(reference):
    return Python(reference, device="cpu")


def test_text_survives_and_ids_are_as_documented():
    texts = ["", " ~", "x = 1", "y" * LENGTH]
    ids = encode(texts)
    assert ids.dtype == torch.int64
    assert decode(ids) == texts
    assert ids[1, :3].tolist() == [1, 95, PAD]
    assert decode(torch.tensor([[34, MASK, 35, PAD, 36]])) == ["A█B"]


@pytest.mark.parametrize("text", ["x" * (LENGTH + 1), "é", "a\tb", "a\nb"])
def test_what_has_no_ids_is_refused(text):
    with pytest.raises(RedraftError, match="printable ASCII"):
        encode([text])


def test_lines_are_as_promised():
    for split in ("train", "test"):
        found = lines(split)
        assert len(found) > 2000
        assert len(set(found)) == len(found)
        assert all(8 <= len(line) <= 64 and line == line.strip() and line.isprintable() for line in found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert all(ast.parse(line).body for line in found[::50])
    assert 0.03 < len(lines("test")) / len(lines("train")) < 0.3


def test_no_line_is_both_for_training_and_for_testing():
    assert not set(lines("train")) & set(lines("test"))


def test_a_module_is_of_one_split_and_a_line_of_both_is_for_training():
    modules = {f"a{i}.py": f"common = 0\nnumber = {i}" for i in range(60)}
    train, test = (python._collect(split, modules.items()) for split in ("train", "test"))
    assert "common = 0" in train
    assert "common = 0" not in test
    for name, source in modules.items():
        line = source.splitlines()[1]
        split = python._split_of(name)
        assert (line in train, line in test) == (split == "train", split == "test")
    assert 0 < len(test) < 20


def test_modules_are_the_libraries_but_tests():
    names = [name for name, _ in python._modules()]
    assert "ast.py" in names
    assert {"test", "tests", "site-packages", "encodings"} <= python.SKIPPED
    assert not [name for name in names if python.SKIPPED & set(name.split("/"))]


@pytest.mark.parametrize("kind", python.KINDS)
def test_a_problem_does_not_depend_on_how_many_are_made(task, kind):
    few, many = task.problems(2, seed=3, kind=kind), task.problems(5, seed=3, kind=kind)[:2]
    for name in ("ids", "x", "frozen"):
        assert torch.equal(getattr(few, name), getattr(many, name))


def test_ids_are_of_one_problem_each(task):
    sets = [task.problems(3, s, p, k).ids for s in (0, 1) for p in python.SPLITS for k in python.KINDS]
    assert len(torch.cat(sets).unique()) == 36


def test_infilling_frees_one_span_of_a_held_out_line(task):
    problems = task.problems(60, kind="infilling")
    texts = decode(problems.x)
    assert set(texts) <= set(lines("test"))
    assert len(set(texts)) > 55
    shares = []
    for text, frozen in zip(texts, problems.frozen, strict=True):
        (free,) = (~frozen).nonzero(as_tuple=True)
        assert free.tolist() == list(range(int(free[0]), int(free[-1]) + 1))
        assert free[-1] < len(text)
        shares.append(len(free) / len(text))
    assert 0.1 < min(shares) < 0.3 < 0.5 < max(shares) < 0.7
    assert not task.problems(3).frozen.any()


def test_of_a_length_only_the_end_is_given(task):
    problems = task.problems(20, seed=3, kind="length")
    texts = decode(problems.x)
    assert [int(free) for free in (~problems.frozen).sum(1)] == [len(text) - 1 for text in texts]
    assert [decode(row[None])[0].strip() for row in problems.x.masked_fill(~problems.frozen, encode([" "])[0, 0])] == [
        text[-1] for text in texts
    ]
    assert set(texts) <= set(lines("test"))
    assert task.evaluate(problems.x, problems)["exact"].isnan().all()


def test_sets_of_samples(task):
    real, one = task.clean(60, seed=1, split="test"), task.clean(1, split="test").expand(60, -1)
    some = task.problems(60)
    various, single = task.evaluate_set(real, some), task.evaluate_set(one, some)
    assert various["unique"] == 1
    assert single["unique"] == 1 / 60
    assert various["mauve-like"] > 0.6 > 0.2 > single["mauve-like"]
    assert "mauve-like" not in task.evaluate_set(real, task.problems(60, kind="infilling"))


def test_metrics_of_sound_and_broken_samples(task):
    texts = ["x = 1", "x = (", "", "aaaaaaaa", "abc"]
    samples = encode(texts)
    samples = torch.cat([samples, samples[:1], samples[:1]])
    samples[5, 10] = 50  # a character after the first PAD
    samples[6, 1] = MASK
    metrics = task.evaluate(samples, task.problems(7))
    assert metrics["parses"].tolist() == [True, False, False, True, True, False, False]
    assert metrics["length"].tolist() == [5, 5, 0, 8, 3, 5, 5]
    assert metrics["repetition"].tolist() == [0, 0, 0, 0.8, 0, 0, 0]
    assert metrics["nll"].isnan().tolist() == [False, False, True, False, False, False, False]
    assert metrics["exact"].isnan().all()


def test_parsing_warns_of_nothing_and_fails_of_nothing(recwarn):
    assert python.parses("'\\d'")
    assert python.parses("1 is 1")
    assert not python.parses("# only a remark")
    assert not python.parses("(" * 64)
    assert not recwarn.list


def test_exact_is_the_original_line(task):
    problems = task.problems(4, kind="infilling")
    samples = problems.x.clone()
    samples[1, 0] += 1
    assert task.evaluate(samples, problems)["exact"].tolist() == [1, 0, 1, 1]


def test_likelihood_is_the_chain_rule_over_the_text_and_one_pad(task, reference):
    net = load_reference(reference, "cpu").net
    texts = ["x = 1", "y" * LENGTH]
    found = task.nll(encode(texts))
    for text, nll in zip(texts, found, strict=True):
        ids = encode([text])[0][: len(text) + 1].tolist()
        total = 0.0
        for i, token in enumerate(ids):
            logits = net(torch.tensor([[MASK, *ids[:i]]]))[0][0, -1]
            total -= float(F.log_softmax(logits, -1)[token])
        assert math.isclose(total / len(ids), nll, rel_tol=1e-4)


def test_nothing_after_the_end_counts(task):
    samples = encode(["x = 1"]).repeat(2, 1)
    samples[1, 20:] = 7
    assert task.nll(samples).diff().abs() < 1e-6
    assert torch.allclose(*task.features(samples), atol=1e-6)
    assert not torch.allclose(*task.features(encode(["x = 1", "x = 2"])), atol=1e-4)


def test_a_judge_that_sees_ahead_is_refused(tmp_path):
    save_network(Transformer(characters.VOCABULARY, 16, 1, 2), tmp_path, "A card.")
    with pytest.raises(RedraftError, match="must be causal"):
        load_reference(str(tmp_path), "cpu")


def test_diversity_of_a_set():
    same, various = diversity(encode(["abab"] * 3)), diversity(encode(["abcd", "efgh", "ijkl"]))
    assert same["unique"] == 1 / 3
    assert same["distinct_1"] == 2 / 12
    assert same["distinct_2"] == 2 / 9
    assert same["distinct_4"] == 1 / 3
    assert math.isclose(same["entropy"], math.log(2))
    assert various["unique"] == various["distinct_1"] == various["distinct_4"] == 1
    assert math.isclose(various["entropy"], math.log(4))
    assert diversity(encode([""]))["distinct_1"] == 0


def clouds(n, *means):
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.concatenate([rng.normal(mean, 0.1, (n // len(means), 3)) for mean in means]))


def test_the_frontier_area_falls_from_one_to_near_zero_as_sets_part():
    a, b, c = ([9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0])
    both = clouds(200, a, b)
    scores = [frontier_area(both, other, clusters=3) for other in (both, clouds(200, a, c), clouds(200, c, c))]
    assert scores[0] > 0.99
    assert 0.05 < scores[1] < 0.5
    assert scores[2] < 0.02
    assert math.isclose(frontier_area(clouds(200, a, c), both, clusters=3), scores[1], abs_tol=0.02)


def test_the_frontier_area_is_the_formulas():
    """Two clusters, p = (1, 0) and q = (1/2, 1/2), against the closed form integrated finely."""
    a, b = [9.0, 0, 0], [0, 9.0, 0]
    found = frontier_area(clouds(200, a), clouds(200, a, b), clusters=2, scale=1.0)
    share = np.linspace(1e-6, 1 - 1e-6, 100_001)
    r = np.stack([share + (1 - share) / 2, (1 - share) / 2])
    x = np.exp(-(0.5 * np.log(0.5 / r)).sum(0))  # exp(-KL(q | r))
    y = np.exp(np.log(r[0]))  # exp(-KL(p | r))
    x, y = np.concatenate([[0], x[::-1], [1]]), np.concatenate([[1], y[::-1], [0]])
    assert math.isclose(found, float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum()), abs_tol=5e-3)


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 1, "split": "tset"}, {"n": 1, "kind": "infiling"}])
def test_problems_that_cannot_be_are_refused(task, settings):
    with pytest.raises(RedraftError):
        task.problems(**settings)


def test_clean_lines_are_different_lines_of_the_split():
    task = Python()
    for split in ("train", "test"):
        clean = task.clean(20, seed=3, split=split)
        texts = decode(clean)
        assert len(set(texts)) == 20
        assert set(texts) <= set(lines(split))
        assert torch.equal(clean, task.clean(20, seed=3, split=split))
        assert not torch.equal(clean, task.clean(20, seed=4, split=split))
