"""The transformer: padding hides, causality holds, boards have the symmetries of Sudoku, lines have no origin."""

import numpy as np
import pytest
import torch

from redraft import RedraftError
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import load_network, save_network
from redraft.tasks.boards import PEERS, UNITS

V = 11


def net(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Transformer(**({"vocabulary": V, "width": 24, "depth": 3, "heads": 3} | changes))
        for name, parameter in made.named_parameters():
            if name.endswith(("weight", "edge")) and parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)  # large enough that everything has a part in the output
        return made.eval().requires_grad_(False)


def tokens(rows, size, seed=0):
    return torch.randint(V, (rows, size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("causal", "edges"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("left", "right"), [(0, 5), (4, 0), (3, 2)])
def test_a_padded_row_is_as_the_row_alone(causal, edges, left, right):
    line = net(causal=causal, edges=edges)
    x = tokens(2, 7)
    padding = tokens(2, left + right, seed=1)
    padded = torch.cat([padding[:, :left], x, padding[:, left:]], 1)
    visible = torch.zeros(padded.shape, dtype=torch.bool)
    visible[:, left : left + 7] = True
    alone, inside = line(x), line(padded, visible)
    for one, other in zip(alone, inside, strict=True):
        assert torch.allclose(one, other[:, left : left + 7], atol=1e-5)
        assert other.isfinite().all()
    assert line._seen(padded, visible).any(-1).all()  # attention to nothing is NaN on some devices
    seen = line(padded)[0][:, left : left + 7]  # negative control: padding that is not hidden is felt
    assert (left == 0 and causal) or not torch.allclose(alone[0], seen, atol=1e-3)


def test_padding_is_of_each_row_its_own():
    x = tokens(2, 6)
    visible = torch.ones(2, 6, dtype=torch.bool)
    visible[0, 4:] = False
    logits = net()(x, visible)[0]
    assert torch.allclose(logits[0, :4], net()(x[:1, :4])[0][0], atol=1e-5)
    assert torch.allclose(logits[1], net()(x[1:])[0][0], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_a_causal_network_and_no_other_is_blind_to_what_comes(causal):
    x = tokens(2, 8)
    other = x.clone()
    other[:, 5] = (other[:, 5] + 1) % V
    change = (net(causal=causal)(x)[0] - net(causal=causal)(other)[0]).abs().amax((0, 2))
    assert change[5:].min() > 1e-4
    assert (change[:5].max() == 0) if causal else (change[:5].min() > 1e-4)


def test_the_order_of_a_line_counts():
    x = tokens(1, 6)
    assert not torch.allclose(net()(x)[0], net()(x.flip(1))[0].flip(1), atol=1e-3)


def test_a_line_of_masks_has_a_first_and_a_last_position_only_where_edges_are_marked():
    x = torch.full((1, 6), V - 1)
    plain, marked = net()(x)[0][0], net(edges=True)(x)[0][0]
    assert torch.allclose(plain, plain[:1].expand_as(plain), atol=1e-5)
    apart = torch.cdist(marked, marked) + torch.eye(6)
    assert apart.min() > 1e-3


def moved(rows, columns):
    """Cell indices of a board with its rows and columns reordered."""
    return torch.as_tensor(9 * np.array(rows)[:, None] + np.array(columns)).flatten()


def board(**changes):
    made = net(layout="board", passes=2, **changes)
    for block in made.blocks:
        torch.nn.init.normal_(block.bias, generator=torch.Generator().manual_seed(5))
    return made


@pytest.mark.parametrize(
    ("rows", "columns", "symmetry"),
    [
        ([1, 2, 0, 6, 7, 8, 5, 4, 3], [3, 5, 4, 0, 1, 2, 8, 6, 7], True),  # bands and stacks stay together
        ([0, 1, 3, 2, 4, 5, 6, 7, 8], list(range(9)), False),
    ],
)
def test_a_board_has_the_symmetries_of_sudoku_and_no_others(rows, columns, symmetry):
    cells = moved(rows, columns)
    x = tokens(2, 81)
    same = torch.allclose(board()(x)[0][:, cells], board()(x[:, cells])[0], atol=1e-4)
    assert same == symmetry


def test_relations_tell_rows_columns_and_boxes_apart():
    relations = net(layout="board").relations
    assert torch.equal(relations > 0, torch.from_numpy(PEERS) | torch.eye(81, dtype=torch.bool))
    assert relations.diagonal().unique().tolist() == [7]
    for bit, units in ((1, UNITS[:9]), (2, UNITS[9:18]), (4, UNITS[18:])):
        for unit in units:
            assert (relations[unit][:, unit] & bit > 0).all()
        assert (relations & bit > 0).sum() == 9 * 81


def test_features_are_what_the_head_reads_and_early_ones_need_no_later_block():
    whole = board()
    x = tokens(2, 81)
    logits, features = whole(x)
    assert torch.equal(whole.head(features), logits)
    assert torch.equal(whole.features_at(x, 6), features)
    early = whole.features_at(x, 2)
    whole.blocks[2].think.weight.mul_(2)
    assert torch.equal(whole.features_at(x, 2), early)
    assert not torch.allclose(whole.features_at(x, 3), board().features_at(x, 3))
    for wrong in (0, 7):
        with pytest.raises(RedraftError, match="the network has 6"):
            whole.features_at(x, wrong)


def test_each_pass_has_logits_the_last_of_which_are_the_networks():
    x = tokens(1, 81)
    first, last = board().pass_logits(x)
    assert torch.equal(last, board()(x)[0])
    assert not torch.allclose(first, last, atol=1e-3)


def test_every_weight_has_a_gradient():
    made = board().requires_grad_(True)
    made(tokens(2, 81))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())


def test_the_configuration_rebuilds_the_network(tmp_path):
    made = net(layout="board", passes=2, causal=False, hidden=40)
    save_network(made, tmp_path, "A card.")
    again = load_network(Transformer, tmp_path)
    x = tokens(1, 81)
    assert again.config == made.config
    assert torch.equal(again(x)[0], made(x)[0])


def test_what_cannot_be_built_is_one_sentence():
    with pytest.raises(RedraftError, match="unknown layout 'bord'; did you mean 'board'"):
        Transformer(V, layout="bord")
    with pytest.raises(RedraftError, match="5 heads cannot have an even share"):
        Transformer(V, width=35, heads=5)
