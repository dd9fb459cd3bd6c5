"""What states on their way are worth: which clean samples are guessed for them."""

import pytest
import torch
from models_exact import LinearGaussian
from tokens import problems

import redraft
from redraft import Parallel, Preset, RedraftError, Sequential, Unmask
from redraft.core.streams import Streams
from redraft.methods.value import Reward
from redraft.models.tokens import Convention, TokenModel
from redraft.processes.categorical import Draw

ROWS = 4000
LOGITS = torch.tensor([0.5, 0.3, 0.2]).log()
VALUES = torch.tensor([1.0, 2.0, 4.0])


def stub(x, state):
    return torch.cat([LOGITS, torch.tensor([-torch.inf])]).repeat(*x.shape, 1), None


MODEL = TokenModel("stub", stub, Convention(4, 3), length=1)


def verifier(samples, given):
    return VALUES[samples[:, 0]].double()


def values(sampler, **settings):
    """V (ROWS,) of states of noise."""
    given, streams = problems(ROWS, 1), Streams.root(0, torch.arange(ROWS))
    noisy = MODEL.process.prior(given.state(), given.state().free, streams.fold("prior"))
    walk = sampler.init(MODEL, noisy, streams)
    return Reward(100.0, **settings).value(sampler, MODEL, walk, streams.fold("value"), verifier)[1]


def shares(found):
    return torch.stack([(found == value).double().mean() for value in VALUES]).tolist()


SHAPED = [
    (Unmask(4, draw=Draw(top_p=0.6)), [0.625, 0.375, 0]),
    (Unmask(4, draw=Draw(temperature=0.5)), [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
    (Preset(steps=4, top_p=0.3), [1, 0, 0]),
    (Preset("remdm-cap", 4), [0.625, 0.375, 0]),
    (Preset("dream", 4, temperature=0.0), [1, 0, 0]),
    (Parallel(4, temperature=0.0), [1, 0, 0]),
    (Sequential(temperature=0.5), [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
    (Parallel(4), [0.5, 0.3, 0.2]),
]


@pytest.mark.parametrize(("sampler", "law"), SHAPED)
def test_guesses_are_drawn_as_the_sampler_draws(sampler, law):
    assert shares(values(sampler)) == pytest.approx(law, abs=0.03)
    assert shares(values(sampler, guess="network")) == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_a_sampler_that_does_not_shape_guesses_as_the_network_bit_for_bit():
    found = [values(Unmask(4), guess=guess, draws=3) for guess in ("sampler", "network")]
    assert torch.equal(*found)


def test_guesses_at_temperature_0_are_all_equal():
    assert values(Preset("llada", 4), draws=5).sub(1).abs().max() < 1e-9
    assert values(Preset("llada", 4), guess="network", draws=5).std() > 0.1


def test_a_mean_is_not_drawn():
    model = LinearGaussian()
    given, kinds = model.problems(model.draw(3, 3), ()), ("sampler", "network")
    found = [
        redraft.run(
            redraft.FK(2, Reward(0.5, guess=guess), sampler=Parallel(4, stochasticity=1.0, temperature=0.5)),
            model,
            given,
            verifier=lambda samples, _: samples.double().flatten(1).sum(1),
            progress=False,
        ).samples
        for guess in kinds
    ]
    assert torch.equal(*found)


def test_another_guess_is_refused():
    with pytest.raises(RedraftError, match="unknown guess 'samplers'; did you mean 'sampler'"):
        Reward(guess="samplers")
