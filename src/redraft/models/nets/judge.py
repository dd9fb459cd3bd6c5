"""A small convolutional network with few features, for classifiers and for distances between sets of pictures."""

from __future__ import annotations

from torch import Tensor, nn

from redraft.models.nets.base import Net


class Judge(Net):
    """Features (N, D) of pictures (N, side, side) in [-1, 1], of 8 or 28 pixels, and what is read off them.

    Few features, so that some hundred pictures are enough for their covariance.
    """

    def __init__(self, side: int = 8, width: int = 16, features: int = 32, outputs: int = 10) -> None:
        """Build the network.

        Args:
            side: height and width of a picture.
            width: channels of the first layer.
            features: D.
            outputs: numbers that are read off the features: one a class, or of a space to compare pictures in.
        """
        super().__init__()
        self.config = {"side": side, "width": width, "features": features, "outputs": outputs}
        self.trunk = nn.Sequential(
            *_convolution(1, width, stride=2 if side > 16 else 1),
            *_convolution(width, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, features),
            nn.BatchNorm1d(features),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(features, outputs))

    def features(self, images: Tensor) -> Tensor:
        """Features (N, D) of pictures (N, side, side)."""
        found: Tensor = self.trunk(images[:, None])
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or coordinates, (N, outputs) of pictures (N, side, side)."""
        read: Tensor = self.head(self.features(images))
        return read


def _convolution(before: int, after: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, padding=1, stride=stride), nn.BatchNorm2d(after), nn.ReLU()
