"""The contract test of verifiers passes on sound ones, and complains about each that breaks a promise."""

import pytest
import torch
from toys import toy_problems

from redraft.testing import check_verifier


def problems():
    return toy_problems([1, 3, 2])


class Scoring:
    """A sound verifier, of which broken ones change one thing."""

    def __call__(self, samples, problems):
        return samples.flatten(1).sum(1)

    def blame(self, samples, problems):
        return samples.flatten(2).square().sum(2)


class Jumping(Scoring):
    mark, calls = "jumping", 0

    def __call__(self, samples, problems):
        self.calls += 1
        return super().__call__(samples, problems) + self.calls


class Ranking(Scoring):
    def __call__(self, samples, problems):
        return super().__call__(samples, problems).argsort().argsort()


class Sorted(Scoring):
    relative = True

    def __call__(self, samples, problems):
        return super().__call__(samples, problems).sort().values


class Seeing(Scoring):
    blind = True

    def __call__(self, samples, problems):
        return super().__call__(samples, problems) + problems.ids


class Wiping(Scoring):
    def __call__(self, samples, problems):
        return super().__call__(samples.mul_(2), problems)


class Renaming(Scoring):
    def __call__(self, samples, problems):
        problems.facts["seen"] = torch.ones(len(problems))
        return super().__call__(samples, problems)


class Unsized(Scoring):
    def __call__(self, samples, problems):
        return samples.sum()


class Nothing(Scoring):
    def __call__(self, samples, problems):
        return None


class Infinite(Scoring):
    def __call__(self, samples, problems):
        return samples.flatten(1).sum(1) * torch.inf


class Broken(Scoring):
    def __call__(self, samples, problems):
        raise KeyError("weights")


class Shifting(Scoring):
    def blame(self, samples, problems):
        return super().blame(samples, problems) / len(samples)


class Praising(Scoring):
    def blame(self, samples, problems):
        return -super().blame(samples, problems)


class Free(Scoring):
    calls_per_row = 0


class Wordy(Scoring):
    blind = "yes"


class Silenced(Scoring):
    blames, blame = True, None


def test_a_sound_verifier_passes():
    check_verifier(Scoring(), torch.rand(3, 6, 2), problems())


@pytest.mark.parametrize(
    ("verifier", "complaint"),
    [
        (Jumping, "a sample's score changes when asked again"),
        (Ranking, "a sample's score depends on its batch"),
        (Sorted, "scores are out of order"),
        (Seeing, "the verifier is not blind"),
        (Wiping, "the verifier changes its samples"),
        (Renaming, "the verifier changes its problems"),
        (Unsized, r"the verifier gave shape \(\) for 3 samples"),
        (Nothing, "the verifier gave a NoneType, where numbers are asked for"),
        (Infinite, "gave NaN or infinity"),
        (Broken, "the verifier raised KeyError: 'weights'"),
        (Shifting, "a sample's blame depends on its batch"),
        (Praising, "blamed a region by less than 0"),
        (Free, "`calls_per_row` is 0: a sample costs one call or more"),
        (Wordy, "`blind` is 'yes', where bool is asked for"),
        (Silenced, "says that it `blames`, and has no `blame`"),
        (lambda: 3, "the verifier cannot be called"),
    ],
)
def test_a_broken_verifier_is_told_what_is_wrong(verifier, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_verifier(verifier(), torch.rand(3, 6, 2) + 1, problems())


def test_a_verifier_that_is_changed_by_use_is_told_what_to_do():
    calls = []

    def first(samples, problems):
        calls.append(1)
        return samples[:, 0, 0]

    samples = torch.rand(3, 6, 2)
    with pytest.raises(AssertionError, match="the verifier is changed by being called: give it an attribute `mark`"):
        check_verifier(first, samples, problems())
    first.mark = "first"
    check_verifier(first, samples, problems())
