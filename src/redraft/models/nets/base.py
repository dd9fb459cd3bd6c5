"""What our networks share."""

from __future__ import annotations

from torch import nn


class Net(nn.Module):
    """A network that is shown by its name and its size, not by all its layers."""

    def __repr__(self) -> str:
        """As in 'BoardNet, 1,234,567 parameters'."""
        return f"{type(self).__name__}, {sum(p.numel() for p in self.parameters()):,} parameters"
