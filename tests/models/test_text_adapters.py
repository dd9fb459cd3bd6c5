"""Each family's convention, on tiny networks: dropping the shift, a mask or a position changes a result here."""

import networks
import pytest
import torch
from networks import MASK, VOCABULARY, padded, state_of

from redraft import RedraftError
from redraft.core.state import State
from redraft.models.adapters import text

ROW = [3, 4, MASK, 5, MASK, MASK, 6]
STUBS = {
    "llada": (text.llada, networks.Llada),
    "deaf llada": (text.llada, networks.DeafLlada),
    "dream": (text.dream, networks.Dream),
    "llada2": (text.llada2, networks.Llada2),
    "mdlm": (text.mdlm, networks.Mdlm),
}


def made(name, **options):
    adapter, net = STUBS[name]
    return adapter(net().requires_grad_(False), **options)


def native(kind):
    """A tiny network of transformers with weights large enough that everything matters."""
    import transformers

    size = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 40, "initializer_range": 0.7, "pad_token_id": 1,
    }  # fmt: skip
    more = {
        "Esm": {"position_embedding_type": "rotary", "mask_token_id": MASK, "token_dropout": True},
        "ModernBert": {
            "cls_token_id": 0,
            "bos_token_id": 0,
            "sep_token_id": 2,
            "eos_token_id": 2,
            "local_attention": 4,
        },
        "MobileBert": {"embedding_size": 8, "true_hidden_size": 8, "intra_bottleneck_size": 8},
    }.get(kind, {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**size | more)
        return getattr(transformers, f"{kind}ForMaskedLM")(config).eval().requires_grad_(False)


# ---- padding


def close(model, row, places, filler):
    """That a row of a padded batch has the logits that it has alone; and that it would not if padding were visible."""
    alone = model.predict(state_of([row])).logits[0]
    batch = padded(row, places, filler)
    together = model.predict(batch).logits[0, places:]
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)
    seen = model.predict(State(batch.x, batch.t, batch.frozen, batch.problem)).logits[0, places:]
    seen, alone = seen.nan_to_num(neginf=0), alone.nan_to_num(neginf=0)
    assert (seen - alone).abs().max() > 0.01


@pytest.mark.parametrize("places", [1, 5])
@pytest.mark.parametrize("name", STUBS)
def test_padding_changes_no_row(name, places):
    close(made(name), ROW, places, 2)
    close(made(name), [MASK, MASK, 3, MASK], places, 2)


@pytest.mark.parametrize(
    "kind",
    [
        "Bert",
        "Roberta",
        "Esm",
        "ModernBert",
        "DistilBert",
        "Electra",
        "ConvBert",
        "FNet",
        "IBert",
        "MobileBert",
        "Nystromformer",
    ],
)
def test_padding_changes_no_row_of_a_network_of_transformers(kind):
    close(text.masked_lm(native(kind), mask=MASK), ROW, 3, 1)


def test_a_batch_has_features_for_every_row_whatever_its_padding():
    for name in STUBS:
        model = made(name, features=True)
        batch = padded(ROW, 4)
        together, alone = model.predict(batch).features, model.predict(state_of([ROW])).features
        assert together.shape == (2, 11, 8)
        torch.testing.assert_close(together[0, 4:], alone[0], atol=1e-5, rtol=1e-5)
        assert made(name).predict(batch).features is None


@pytest.mark.parametrize("visible", [[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
def test_padding_elsewhere_than_on_the_left_is_refused(visible):
    state = state_of([[1, 2, 3, MASK]], visible=torch.tensor([visible]).bool())
    with pytest.raises(RedraftError, match="padding must stand on the left"):
        made("llada").predict(state)


# ---- conventions


def test_each_networks_logits_are_about_the_right_token():
    x = torch.tensor([ROW])
    for name in ("llada", "mdlm"):
        model = made(name)
        raw = model.net.logits(x)[0]
        read = model.predict(state_of([ROW])).logits
        assert torch.equal(read[..., :MASK], raw[..., :MASK])
        assert (read[..., MASK] == -torch.inf).all()
    model = made("dream")
    raw = model.net.logits(x, None, torch.arange(7)[None])[0]
    read = model.predict(state_of([ROW])).logits
    assert torch.equal(read[:, 1:, :MASK], raw[:, 1:, :MASK])
    assert torch.equal(read[:, 0, :MASK], raw[:, 1, :MASK])  # the first token's have nothing before them


def test_llada2_sees_its_own_block_and_those_before():
    model = made("llada2", block=3)
    before = model.predict(state_of([ROW])).logits
    for place, first in ((0, 0), (2, 0), (3, 3), (6, 6)):
        row = list(ROW)
        row[place] = 7
        changed = (model.predict(state_of([row])).logits != before).any(-1)[0]
        assert changed.tolist() == [False] * first + [True] * (7 - first)


def test_llada2_counts_blocks_from_the_first_visible_token():
    close(made("llada2", block=3), ROW, 2, 2)
    close(made("llada2", block=3), ROW, 3, 2)


def test_llada2_fills_its_last_block_up_with_masks():
    """As the authors' loop does, so that the network sees whole blocks; in a batch each row has its own last block."""
    whole = made("llada2", block=5).predict(state_of([[*ROW, MASK, MASK, MASK]])).logits
    assert torch.equal(made("llada2", block=5).predict(state_of([ROW])).logits, whole[:, :7])
    assert not torch.allclose(made("llada2", block=7).predict(state_of([ROW])).logits[:, :5], whole[:, :5])
    assert made("llada2", block=7).mark != made("llada2", block=5).mark == made("llada2", block=5).mark
    close(made("llada2", block=5), ROW, 2, 2)
    shown = text.llada2(networks.Llada2(), block=5, features=True).predict(state_of([ROW]))
    assert shown.features.shape[:2] == shown.logits.shape[:2] == (1, 7)


def test_llada_without_its_condition_has_its_prompt_masked():
    model = made("llada")
    null = model.null(state_of([ROW]))
    assert null.x.tolist() == [[MASK] * 7]
    assert "guidance" in model.offers
    assert "guidance" not in made("dream").offers


def test_llada_forbids_its_end_on_demand():
    net = networks.Llada(eos_token_id=9)
    assert (text.llada(net, forbid_eos=True).predict(state_of([ROW])).logits[..., 9] == -torch.inf).all()
    assert text.llada(net).predict(state_of([ROW])).logits[..., 9].isfinite().all()
    with pytest.raises(RedraftError, match="no end-of-text token"):
        made("llada", forbid_eos=True)


def test_masked_lm_never_draws_special_tokens():
    model = text.masked_lm(native("ModernBert"), mask=MASK)
    logits = model.predict(state_of([ROW])).logits
    assert (logits == -torch.inf).all(0).all(0).nonzero()[:, 0].tolist() == [0, 1, 2, MASK]


def test_esm_needs_one_token_that_is_not_masked():
    model = text.masked_lm(native("Esm"))
    assert model.convention.mask == MASK
    assert model.predict(state_of([[0, *[MASK] * 5, 2]])).logits[..., 3:MASK].isfinite().all()


# ---- errors


def test_a_mask_that_is_unknown_or_outside_the_vocabulary_is_one_sentence():
    with pytest.raises(RedraftError, match="'bert' has no mask token that is known: name its id by mask="):
        text.masked_lm(native("Bert"), name="bert")
    for name in STUBS:
        with pytest.raises(RedraftError, match="mask id 12 is outside the vocabulary of 12 tokens"):
            made(name, mask=12)


def test_mdlm_with_a_time_input_and_blocks_of_nothing_are_refused():
    with pytest.raises(RedraftError, match="conditioned on time"):
        text.mdlm(networks.Mdlm(time_conditioning=True))
    with pytest.raises(RedraftError, match="block is 0"):
        made("llada2", block=0)


def test_different_weights_have_different_marks():
    one, other = made("llada"), networks.Llada()
    assert one.mark == made("llada").mark
    with torch.no_grad():
        other.head.bias += 1e-4
    assert text.llada(other).mark != one.mark


@pytest.mark.parametrize("name", ["llada", "dream", "llada2", "mdlm"])
def test_the_ids_that_end_a_text_are_those_of_the_network_and_its_tokenizer(name):
    adapter, net = STUBS[name]
    net = net().requires_grad_(False)
    net.config.eos_token_id = [7, 9, VOCABULARY]  # some configurations have several; this one's last is no token
    tokenizer = type("Words", (), {"eos_token_id": 8, "all_special_ids": []})()
    assert adapter(net, tokenizer).convention.ends == (7, 8, 9)
    net.config.eos_token_id = None
    assert adapter(net).convention.ends == ()
