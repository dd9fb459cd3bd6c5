"""Draws of tokens, and what is measured of the distribution that they are drawn from."""

import pytest
import torch

from redraft.core.state import Prediction
from redraft.core.streams import Streams
from redraft.processes import categorical
from redraft.processes.categorical import Draw, entropy, margin, peaks, surprise

ROWS = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.0, 0.0, 0.0], [0.2] * 5], dtype=torch.float64)
WHERE = torch.ones(1, 3, dtype=torch.bool)


def predicted(rows=ROWS):
    return Prediction(torch.zeros(1, len(rows)), logits=rows.log()[None])


def drawn(draw, seed=0):
    return draw(predicted(), WHERE, Streams.root(seed, torch.arange(1)))


@pytest.mark.parametrize(
    ("draw", "shaped"),
    [
        (Draw(), ROWS),
        (Draw(0.5), ROWS**2),
        (Draw(1.0, 0.65), torch.tensor([[0.6, 0.1, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2, 0.2, 0.2, 0.2, 0]])),
        (Draw(1.0, 0.65, "drop"), torch.tensor([[0.6, 0, 0, 0, 0], [0.5, 0, 0, 0, 0], [0.2, 0.2, 0.2, 0, 0]])),
        (Draw(0, 0.65), torch.tensor([[0.6, 0.1, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0.2, 0.2, 0.2, 0.2, 0]])),
    ],
)
def test_a_draw_knows_how_likely_its_token_was_before_and_after_shaping(draw, shaped):
    shaped = shaped.double() / shaped.sum(1, keepdim=True)
    for seed in range(5):
        found = drawn(draw, seed)
        assert torch.allclose(found.logp.exp(), ROWS.gather(1, found.tokens[:, None])[:, 0])
        assert torch.allclose(found.shaped.exp(), shaped.gather(1, found.tokens[:, None])[:, 0])
        assert (found.shaped > -torch.inf).all()


def test_entropy_and_margin_of_the_shaped_distribution():
    """At Dream's T = .2 and top-p .95 the first row is sure and the second a coin: before, the second was the surer."""
    own, shaped = entropy(predicted(), WHERE), entropy(predicted(), WHERE, Draw(0.2, 0.95))
    assert own.argmin() == 1
    assert torch.allclose(shaped, torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64).clamp_min(1).log())
    assert torch.allclose(margin(predicted(), WHERE), torch.tensor([0.5, 0, 0], dtype=torch.float64))
    assert torch.allclose(margin(predicted(), WHERE, Draw(0.2, 0.95)), torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_words_left_out_leave_their_share_to_the_others():
    tokens = torch.tensor([[0, 1, 2]])
    found = surprise(predicted(), WHERE, tokens, (1, 2)).neg().exp()
    assert torch.allclose(found, torch.tensor([0.6 / 0.8, 0, 0], dtype=torch.float64))


def test_peaks_are_the_same_in_parts(monkeypatch):
    logits = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    where, tokens = (
        torch.rand(2, 7, generator=torch.Generator().manual_seed(1)) < 0.6,
        torch.tensor([[-1, 3] * 7]).view(2, 7),
    )
    given = (Prediction(tokens, logits=logits), where, tokens, 0.7, Streams.root(0, torch.arange(2)))
    whole = peaks(*given)
    monkeypatch.setattr(categorical, "CHUNK", 10)
    assert torch.equal(peaks(*given), whole)
    assert (whole < 0).all()
