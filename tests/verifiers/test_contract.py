"""The contract test for verifiers passes those that ship and complains about one that breaks it."""

import pytest
import torch
from toys import toy_problems

from redraft.models.characters import encode
from redraft.tasks.markov import Markov
from redraft.tasks.python import Python
from redraft.tasks.sudoku_tokens import SudokuTokens
from redraft.testing import check_verifier
from redraft.verifiers import Batched, MeanRank, WeightedSum, likelihood, parses, violations

PROBLEMS = toy_problems([0, 0, 0])
SAMPLES = torch.tensor([[1.0, 5.0], [2.0, 4.0], [4.0, 3.0]])


def sound(samples, problems):
    return samples[:, 0] + problems.ids


def test_sound_verifiers_pass():
    check_verifier(sound, SAMPLES, PROBLEMS)
    check_verifier(Batched(sound, size=2), SAMPLES, PROBLEMS)
    check_verifier(MeanRank({"a": sound, "b": lambda s, p: s[:, 1]}), SAMPLES, PROBLEMS)
    check_verifier(WeightedSum({"a": (sound, 0.5)}), SAMPLES, PROBLEMS)
    boards, board = SudokuTokens().problems(3), SudokuTokens()
    check_verifier(violations(board), boards.x.flip(1).roll(1, 1), boards)
    check_verifier(parses(), encode(["return", "retrun x", "x = 1"]), Python().problems(3))
    check_verifier(likelihood(Markov()), Markov().chain.sample(3, seed=1), Markov().problems(3))


def mixing(samples, problems):
    return samples[:, 0] - samples[:, 0].mean()


def spoiling(samples, problems):
    return samples.mul_(2)[:, 0]


def sorting(samples, problems):
    return samples[:, 0].sort().values


def moody(samples, problems):
    return samples[:, 0] + torch.rand(len(samples))


def moving(samples, problems):
    torch.rand(1)
    return samples[:, 0]


def not_blind(samples, problems):
    return samples[:, 0] + problems.ids


not_blind.blind = True


@pytest.mark.parametrize(
    ("verifier", "complaint"),
    [
        (mixing, "depends on its batch"),
        (spoiling, "changes its samples"),
        (sorting, "out of order"),
        (moody, "changes when asked again"),
        (moving, "generator was moved"),
        (not_blind, "not blind"),
    ],
)
def test_a_broken_verifier_is_told_what_is_wrong(verifier, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_verifier(verifier, SAMPLES.clone(), PROBLEMS)


def test_answers_that_are_none_are_told_as_in_a_run():
    with pytest.raises(AssertionError, match="^the verifier gave shape"):
        check_verifier(lambda s, p: s, SAMPLES, PROBLEMS)
    with pytest.raises(AssertionError, match="NaN or infinity .sample number 2"):
        check_verifier(lambda s, p: torch.where(s[:, 0] > 3, torch.nan, 0.0), SAMPLES, PROBLEMS)
