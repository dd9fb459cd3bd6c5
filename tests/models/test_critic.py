"""Critics: what they read, and folders that hold them, sound or refused in one sentence."""

import json

import pytest
import torch

from redraft import RedraftError
from redraft.core.state import State
from redraft.models.critic import BlocksCritic, HeadCritic, load_critic, load_critics, save_critic
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import Convention, TokenModel
from redraft.models.weights import digest, save_network

MASK = 5


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


@pytest.fixture
def net():
    return seeded(lambda: Transformer(6, width=16, depth=3, heads=2)).eval().requires_grad_(False)


@pytest.fixture
def model(net):
    return TokenModel("mine", lambda x, state: net(x), Convention(6, MASK), features=True, net=net)


@pytest.fixture
def state():
    x = torch.tensor([[0, 1, MASK, 2], [MASK, MASK, 3, 4]])
    return State(x, torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.bool), torch.arange(2))


def trained(critic):
    """A critic with weights that are not 0."""
    generator = torch.Generator().manual_seed(1)
    for value in critic.parameters():
        value.data = value + 0.1 * torch.randn(value.shape, generator=generator)
    return critic.requires_grad_(False)


def test_a_head_is_linear_in_the_features_of_the_pass_that_it_reads(model, net, state):
    proposal = state.x.masked_fill(state.x == MASK, 1)
    star, prism = trained(HeadCritic(16, 6)), trained(HeadCritic(16, 6, "state"))
    model = model.with_critic("star", star).with_critic("prism", prism)
    expected = net(proposal)[1] @ star.linear.weight[0] + star.linear.bias
    torch.testing.assert_close(model.judge("star", proposal, state), expected)
    expected = net(state.x)[1] @ prism.linear.weight[0] + prism.linear.bias
    torch.testing.assert_close(model.quality("prism", state, model.predict(state)), expected)


def test_a_head_begins_without_an_opinion(model, state):
    assert (model.with_critic("star", HeadCritic(16, 6)).judge("star", state.x, state) == 0).all()


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_critic_of_blocks_begins_as_the_denoisers_first_blocks(model, net, state, blocks):
    critic = BlocksCritic.copy(net, blocks)
    critic.net.head.weight.data.fill_(0.5)
    found = model.with_critic("blocks", critic).judge("blocks", state.x, state)
    torch.testing.assert_close(found, net.features_at(state.x, blocks).sum(2) / 2)
    assert len(critic.net.blocks) == blocks


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_blocks_are_counted_over_the_passes_of_a_network_that_repeats_them(blocks):
    net = seeded(lambda: Transformer(6, width=16, depth=2, heads=2, passes=2))
    critic = BlocksCritic.copy(net, blocks)
    critic.net.head.weight.data.fill_(0.5)
    x = torch.arange(5)[None]
    torch.testing.assert_close(critic(x, x), net.features_at(x, blocks).sum(2) / 2)


def test_training_a_copy_leaves_the_denoiser_as_it_is(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trained(BlocksCritic.copy(net, 2))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("blocks", [0, -1, 4])
def test_more_blocks_than_there_are_are_refused(net, blocks):
    with pytest.raises(RedraftError, match="the denoiser has 1 to 3"):
        BlocksCritic.copy(net, blocks)


def test_a_head_on_other_features_or_another_vocabulary_is_refused(model, state):
    with pytest.raises(RedraftError, match="trained on 8 features a token; the network shows 16"):
        model.with_critic("star", HeadCritic(8, 6)).judge("star", state.x, state)
    with pytest.raises(RedraftError, match="vocabulary of 7 tokens; 'mine' has 6"):
        model.with_critic("star", HeadCritic(16, 7))


def test_a_critic_that_is_asked_about_what_it_does_not_read_is_refused(model, state):
    model = model.with_critic("star", HeadCritic(16, 6)).with_critic("prism", HeadCritic(16, 6, "state"))
    with pytest.raises(RedraftError, match="'prism' does not read the proposal: ask it by `quality`"):
        model.judge("prism", state.x, state)
    with pytest.raises(RedraftError, match="'star' does not read the state: ask it by `judge`"):
        model.quality("star", state, model.predict(state))
    with pytest.raises(RedraftError, match="reads is 'both'"):
        HeadCritic(16, 6, "both")


def test_a_model_without_features_is_refused(state):
    blind = TokenModel("blind", lambda x, state: (torch.zeros(*x.shape, 6), None), Convention(6, MASK))
    blind = blind.with_critic("star", HeadCritic(16, 6)).with_critic("prism", HeadCritic(16, 6, "state"))
    with pytest.raises(RedraftError, match="does not show"):
        blind.judge("star", state.x, state)
    with pytest.raises(RedraftError, match="does not show"):
        blind.quality("prism", state, blind.predict(state))


def kinds(net):
    return {
        "blocks": trained(BlocksCritic.copy(net, 2)),
        "prism": trained(HeadCritic(16, 6, "state")),
        "star": trained(HeadCritic(16, 6)),
    }


def test_critics_come_back_from_a_models_folder_as_they_were(tmp_path, net):
    save_network(net, tmp_path, "A card.", {})
    assert load_critics(tmp_path) == {}
    saved = kinds(net)
    for name, critic in saved.items():
        save_critic(critic, tmp_path / "critics" / name, f"# {name}\n", {"denoiser": digest(tmp_path)})
    loaded = load_critics(tmp_path, "cpu")
    assert list(loaded) == list(saved)
    x = torch.tensor([[0, 1, 2, 3]])
    for name, critic in saved.items():
        assert torch.equal(loaded[name](x, lambda x: net(x)[1]), critic(x, lambda x: net(x)[1]))
        assert (loaded[name].reads, loaded[name].vocabulary) == (critic.reads, critic.vocabulary)
        assert not any(value.requires_grad for value in loaded[name].parameters())
        assert (tmp_path / "critics" / name / "README.md").read_text() == f"# {name}\n"


def test_a_critic_of_other_weights_is_refused(tmp_path, net):
    save_network(net, tmp_path, "A card.", {})
    save_critic(HeadCritic(16, 6), tmp_path / "critics" / "star", "", {"denoiser": "0123456789ab"})
    with pytest.raises(RedraftError, match="trained for other weights than those in"):
        load_critics(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "missing", "no configuration", "other network", "other shape"])
def test_a_folder_that_holds_no_sound_critic_is_one_sentence(tmp_path, harm):
    save_critic(HeadCritic(16, 6), tmp_path, "")
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif harm == "missing":
        weights.unlink()
    elif harm == "no configuration":
        config.unlink()
    elif harm == "other network":
        config.write_text(config.read_text().replace("HeadCritic", "BoardNet"))
    else:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"config": {"width": 9, "vocabulary": 6}}))
    match = {"no configuration": "cannot be read", "other network": "holds a 'BoardNet', not a critic"}
    with pytest.raises(RedraftError, match=match.get(harm, "cannot be loaded as the safetensors")) as caught:
        load_critic(tmp_path)
    assert "\n" not in str(caught.value)
