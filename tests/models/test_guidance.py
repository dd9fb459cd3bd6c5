"""Classifier-free guidance: the formula, its price, and tokens that are never drawn."""

from dataclasses import replace

import networks
import pytest
import torch
from networks import MASK, padded, state_of

import redraft
from redraft import RedraftError
from redraft.core.counting import CountedModel
from redraft.core.ledger import Ledger
from redraft.models.adapters import text
from redraft.models.guidance import combined, guided

ROW = [3, 4, MASK, 5, MASK]


class Counted(networks.Llada):
    rows = 0

    def forward(self, input_ids=None, **given):
        self.rows += len(input_ids)
        return super().forward(input_ids, **given)


def llada(**options):
    return text.llada(Counted().requires_grad_(False), **options)


@pytest.mark.parametrize("w", [0.0, 0.5, 2.0])
def test_the_papers_formulas(w):
    model = llada()
    state = state_of([ROW, [1, 2, 3, MASK, MASK]])
    c, u = model.predict(state).logits[..., :MASK], model.predict(model.null(state)).logits[..., :MASK]
    assert not torch.allclose(c, u)
    amused, plus_one = guided(model, w).predict(state), guided(model, 1 + w).predict(state)
    torch.testing.assert_close(amused.logits[..., :MASK], u + w * (c - u))
    torch.testing.assert_close(plus_one.logits[..., :MASK], (1 + w) * c - w * u)
    assert torch.equal(amused.clean[state.frozen], state.x[state.frozen])


def test_both_passes_are_counted_and_are_one_batch():
    model = llada()
    before = model.net.rows
    ledger = Ledger(2)
    CountedModel(guided(model, 2.0), ledger).predict(state_of([ROW, [1, 2, 3, MASK, MASK]]))
    assert ledger.nfe.tolist() == [2, 2]
    assert model.net.rows - before == 4


def test_padding_changes_nothing_under_guidance_either():
    model = guided(llada(), 2.0)
    alone, together = model.predict(state_of([ROW])).logits[0], model.predict(padded(ROW, 3)).logits[0, 3:]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_tokens_that_are_never_drawn_stay_so_and_nothing_is_nan():
    inf = torch.inf
    c = torch.tensor([1.0, -inf, -inf, 2.0])
    u = torch.tensor([0.5, -inf, 1.0, -inf])
    for scale in (-1.0, 0.0, 1.0, 3.0):
        mixed = combined(c, u, scale)
        assert mixed[1:].tolist() == [-inf] * 3
        assert mixed[0] == 0.5 + scale * 0.5
    model = guided(text.llada(networks.Llada(eos_token_id=9), forbid_eos=True), 3.0)
    assert not model.predict(state_of([ROW])).logits.isnan().any()


def test_a_critic_reads_one_conditional_pass():
    class Critic:
        reads, vocabulary = "proposal", networks.VOCABULARY

        def __call__(self, x, features):
            return features(x).sum(-1)

    model = llada(features=True).with_critic("sum", Critic())
    state = state_of([ROW])
    proposal = torch.tensor([[3, 4, 1, 5, 2]])
    plain = model.judge("sum", proposal, state)
    before = model.net.rows
    assert torch.equal(guided(model, 4.0).judge("sum", proposal, state), plain)
    assert model.net.rows - before == 1
    assert torch.equal(guided(model, 4.0).predict(state).features, model.predict(state).features)


def test_what_cannot_be_guided_is_one_sentence():
    with pytest.raises(RedraftError, match="needs a model that offers 'guidance'.*'dream' offers .*raw logits"):
        redraft.guided(text.dream(networks.Dream()), 2.0)
    with pytest.raises(RedraftError, match="'llada guided by 2' offers"):
        guided(guided(llada(), 2.0), 2.0)
    with pytest.raises(RedraftError, match="scale is nan"):
        guided(llada(), float("nan"))


def test_equal_tokens_of_which_others_are_given_are_not_one_row():
    """Without its condition a row hides what is given, so equal rows of two problems are two."""
    model, ledger = guided(llada(), 3.0), Ledger(2)
    state = state_of([[5, 6, MASK, MASK]] * 2)
    state = replace(state, frozen=torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]).bool(), cond={})
    logits = CountedModel(model, ledger).predict(state).logits
    for row in range(2):
        torch.testing.assert_close(logits[row], model.predict(state[row : row + 1]).logits[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits[0, 2], logits[1, 2], atol=1e-2)
