"""Folders with networks of random weights, one for each model that ships: small, and nothing else about them is."""

import torch

from redraft.models.nets.board import BoardNet
from redraft.models.nets.digit import DigitNet
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import save_network

NETS = {
    "sudoku": lambda: BoardNet(width=8, message=4, hidden=8, layers=1, passes=1, cell=16),
    "sudoku-tokens": lambda: Transformer(10, width=8, depth=1, heads=1),
    "python": lambda: Transformer(97, width=8, depth=1, heads=1),
    "digits": lambda: DigitNet(width=8, layers=1),
}


def tiny_models(root):
    """A folder for each model's name."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, make in NETS.items():
            save_network(make(), root / name, "", {"model": name})
    return {name: str(root / name) for name in NETS}
