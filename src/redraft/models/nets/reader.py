"""A small convolutional network that reads handwritten digits."""

from __future__ import annotations

from torch import Tensor, nn

from redraft.models.nets.base import Net


class Reader(Net):
    """Logits (N, 10) of digits 0..9 from pictures (N, side, side) in [-1, 1], of 8 or 28 pixels."""

    def __init__(self, side: int = 8, width: int = 32) -> None:
        """Build the network for pictures of `side` x `side` pixels with `width` channels in its first layer."""
        super().__init__()
        self.config = {"side": side, "width": width}
        down = 2 if side > 16 else 1
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, stride=down),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * width, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of the pictures (N, side, side)."""
        logits: Tensor = self.layers(images[:, None])
        return logits
