"""Draws of tokens: what their probabilities are of."""

import torch

from redraft.core.state import Prediction
from redraft.core.streams import Streams
from redraft.processes.categorical import Draw, nucleus

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def drawn(draw, rows=64):
    logits = P.log().expand(rows, 1, 4)
    where = torch.ones(rows, 1, dtype=torch.bool)
    return draw(Prediction(torch.zeros(rows, 1), logits=logits), where, Streams.root(0, torch.arange(rows)))


def test_a_draw_has_its_probability_before_and_after_temperature_and_top_p():
    found, sharp = drawn(Draw(0.5, 0.9)), P**2 / (P**2).sum()
    weights = nucleus(sharp[None], 0.9, "keep")[0]
    assert found.tokens.unique().tolist() == [0, 1]
    assert torch.allclose(found.logp, P.log()[found.tokens])
    assert torch.allclose(found.shaped, (weights / weights.sum()).log()[found.tokens])


def test_at_temperature_zero_both_are_the_network_s():
    found = drawn(Draw(0))
    assert torch.equal(found.shaped, found.logp)
    assert not found.tokens.any()
