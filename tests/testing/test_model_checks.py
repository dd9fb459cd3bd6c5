"""The contract test of models passes on sound ones, and complains about each that breaks a promise."""

from dataclasses import replace

import pytest
import torch
from toys import Toy, toy_problems

from redraft.models.tokens import TokenModel
from redraft.processes.flow import RectifiedFlow
from redraft.tasks.markov import Markov
from redraft.testing import check_model


def problems():
    return toy_problems([1, 3, 2])


def test_a_sound_model_passes():
    check_model(Toy(), problems())


class Mixing(Toy):
    def predict(self, state):
        prediction = super().predict(state)
        return replace(prediction, clean=prediction.clean + prediction.clean.mean(0))


class Silent(Toy):
    def predict(self, state):
        return replace(super().predict(state), uncertainty=None)


class Moving(Toy):
    def predict(self, state):
        torch.rand(1)
        return super().predict(state)


class Raising(Toy):
    def predict(self, state):
        raise ValueError("no such layer")


class Asserting(Toy):
    def predict(self, state):
        assert state.cond


class Bare(Toy):
    def predict(self, state):
        return super().predict(state).clean


class Fresh(Toy):
    def predict(self, state):
        prediction = super().predict(state)
        return replace(prediction, clean=prediction.clean + self.calls)


class Writing(Toy):
    def predict(self, state):
        state.x.zero_()
        return super().predict(state)


class Graphless(Toy):
    graph = property(lambda self: None, lambda self, value: None)


class Listing(Toy):
    def decode(self, x):
        return x.tolist()


class Averaged(Toy):
    def decode(self, x):
        return x - x.mean(0)


class Likely(Toy):
    def log_likelihood(self, samples):
        return samples.sum()


class Growing(Toy):
    @property
    def mark(self):
        return str(self.calls)


class Wandering(RectifiedFlow):
    def step(self, state, prediction, t_next, streams, *settings):
        further = torch.where(t_next < state.t, t_next / 2, t_next)
        return super().step(state, prediction, further, streams, *settings)


class Sure(RectifiedFlow):
    def random_steps(self, *settings):
        return True


class Determined(RectifiedFlow):
    random_prior = False


def of(process):
    """A model with another process."""

    def made():
        toy = Toy()
        toy.process = process()
        return toy

    return made


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Mixing, "depends on its batch"),
        (Silent, "does not predict it"),
        (Moving, "generator was moved"),
        (Raising, "predict raised ValueError: no such layer"),
        (Asserting, "predict raised AssertionError"),
        (Bare, "what `predict` gives is a value of type Tensor, where Prediction is asked for"),
        (Fresh, "a row's prediction changes when asked again"),
        (Writing, "`predict` changes the state"),
        (Graphless, "offers 'graph', and its `graph` is None"),
        (lambda: Toy(regions=5), r"values of shape \(6, 2\), and the model's `shape` is \(5, 2\)"),
        (Listing, "what `decode` gives is a value of type list"),
        (Averaged, "a row's sample depends on its batch"),
        (Likely, r"`log_likelihood` gives is of shape \(\), where \(3,\)"),
        (Growing, "the model is changed by being asked"),
        (of(Wandering), "a step does not lead to its level"),
        (of(Sure), "`random_steps` says True, and whether a step differs from draw to draw is False"),
        (of(Determined), "`random_prior` says False"),
    ],
)
def test_a_broken_model_is_told_what_is_wrong(model, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_model(model(), problems())


def test_one_problem_is_refused():
    with pytest.raises(AssertionError, match="give two or more"):
        check_model(Toy(), problems()[:1])


def test_a_sound_model_of_tokens_passes():
    task = Markov(length=8)
    check_model(task.model, task.problems(3, given=0.3))


def test_a_broken_model_of_tokens_is_told_what_is_wrong():
    task = Markov(length=8)

    def drawing_masks(x, state):
        return torch.zeros(*x.shape, 7), None

    def mixing(x, state):
        logits = task.model.forward(x, state)[0]
        return logits + torch.arange(len(x))[:, None, None] * torch.arange(7), None

    class Open(TokenModel):
        def _read(self, logits, state):
            return logits

    sound = task.model

    def leveled(x, state):
        return task.model.forward(x, state)[0] + state.t[..., None] * torch.arange(7), None

    class Promising(TokenModel):
        more = ()

        @property
        def offers(self):
            return super().offers | set(self.more)

    def promising(offer):
        model = Promising("promising", sound.forward, sound.convention, length=8)
        object.__setattr__(model, "more", (offer,))
        return model

    open_ = Open("open", drawing_masks, sound.convention, length=8)
    for model, complaint in (
        (open_, "mask itself"),
        (replace(sound, forward=mixing), "depend"),
        (replace(sound, forward=leveled), "offers 'timeless', and its prediction depends on the level"),
        (promising("features"), "offers 'features' but predicts no features"),
        (promising("ends"), "offers 'ends', and its convention names none"),
        (promising("critic:star"), "critic 'star' reads the denoiser's features, which 'promising' does not show"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            check_model(model, task.problems(3))
