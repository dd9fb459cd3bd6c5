"""Critics: small networks that find the wrong tokens of a sequence, beside a denoiser that stays as it is.

Lezama et al., "Improved masked image generation with Token-Critic", 2022, and Meshchaninov et al., "Guided star-shaped
masked diffusion" (G-Star), 2026, read a whole proposal without masks, which takes a pass of its own. Kim et al.,
"Fine-tuning masked diffusion for provable self-correction" (PRISM), 2025, reads the partly masked state from the pass
that the denoiser makes anyway. A critic's logit is that a token is wrong: the higher, the worse; Token-Critic and PRISM
have the other sign. PRISM and one setting of G-Star also tune the denoiser's own blocks; here it stays frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from redraft.core.errors import RedraftError
from redraft.models.nets.base import Net
from redraft.models.nets.transformer import Transformer
from redraft.models.tokens import Critic
from redraft.models.weights import digest, load_network, pick_device, read_config, save_network

Reads = Literal["proposal", "state"]


class HeadCritic(Net):
    """One linear layer on the denoiser's features, at first 0: G-Star's lightest setting, and a frozen PRISM."""

    def __init__(self, width: int, vocabulary: int, reads: Reads = "proposal") -> None:
        """Build the layer.

        Args:
            width: D, features of a token.
            vocabulary: V of the denoiser.
            reads: 'proposal', a pass of the denoiser over a whole sequence; or 'state', its pass over the masked one.

        Raises:
            RedraftError: `reads` is neither.
        """
        super().__init__()
        if reads not in ("proposal", "state"):
            raise RedraftError(f"reads is {reads!r}: use 'proposal' or 'state'")
        self.config = {"width": width, "vocabulary": vocabulary, "reads": reads}
        self.width, self.vocabulary = width, vocabulary
        self.reads: str = reads
        self.linear = _zero_linear(width)

    def forward(self, x: Tensor, features: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """Logits (B, R) that each token of `x` (B, R) is wrong.

        Args:
            x: tokens.
            features: of a pass over them (B, R, D), or a function that makes the pass.

        Raises:
            RedraftError: the features are of another width.
        """
        shown = features if isinstance(features, Tensor) else features(x)
        if shown.shape[-1] != self.width:
            raise RedraftError(
                f"the critic was trained on {self.width} features a token; the network shows {shown.shape[-1]}"
            )
        logits: Tensor = self.linear(shown.to(self.linear.weight.dtype))[..., 0]
        return logits


class BlocksCritic(Net):
    """The first blocks of a `Transformer`, copied to be trained, and one linear layer; reads whole proposals.

    It makes its own pass over the tokens, of `blocks` blocks in place of all, and needs no features of the denoiser. It
    takes every position for visible: batches of lines with padding are not for it.
    """

    reads: str = "proposal"

    def __init__(self, net: dict[str, Any], blocks: int) -> None:
        """Build the network with random blocks; `copy` has the denoiser's.

        Args:
            net: configuration of the denoiser's `Transformer`.
            blocks: how many, counted over all passes.

        Raises:
            RedraftError: the denoiser has fewer.
        """
        super().__init__()
        depth, most = net["depth"], net["depth"] * net["passes"]
        if not 1 <= blocks <= most:
            raise RedraftError(f"blocks is {blocks}: the denoiser has 1 to {most} to copy")
        self.config = {"net": net, "blocks": blocks}
        self.blocks, self.vocabulary = blocks, int(net["vocabulary"])
        self.net = Transformer(**{**net, "depth": min(blocks, depth), "passes": -(-blocks // depth)})
        self.net.head = _zero_linear(net["width"])

    @classmethod
    def copy(cls, net: Transformer, blocks: int) -> BlocksCritic:
        """A critic that begins as the first `blocks` blocks of `net`, on its device."""
        critic = cls(net.config, blocks)
        theirs = net.state_dict()
        own = {name: value if "head." in name else theirs[name] for name, value in critic.net.state_dict().items()}
        critic.net.load_state_dict(own)
        return critic.to(next(net.parameters()).device)

    def forward(self, x: Tensor, features: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """Logits (B, R) that each token of `x` (B, R) is wrong; `features` are not looked at."""
        logits: Tensor = self.net.head(self.net.features_at(x, self.blocks))[..., 0]
        return logits


Trained = HeadCritic | BlocksCritic
KINDS: dict[str, type[HeadCritic] | type[BlocksCritic]] = {
    "HeadCritic": HeadCritic,
    "BlocksCritic": BlocksCritic,
}


def save_critic(critic: Trained, folder: Path, card: str, extra: dict[str, Any] | None = None) -> None:
    """Write `critic` into `folder` as model.safetensors and config.json, with the text of its card.

    Args:
        critic: the network.
        folder: made if need be; `critics/<name>` in a model's folder is where that model finds it.
        card: Markdown.
        extra: further entries of config.json; `denoiser` is the digest of the weights that it was trained for.
    """
    save_network(critic, folder, card, extra)


def load_critic(folder: Path, device: str | None = None) -> Trained:
    """The critic in a folder that `redraft train critic` wrote, without gradients.

    Raises:
        RedraftError: the folder holds something else, or a damaged file.
    """
    name = read_config(folder).get("network")
    if name not in KINDS:
        raise RedraftError(f"{folder} holds a {name!r}, not a critic")
    return load_network(KINDS[name], folder).to(pick_device(device))


def load_critics(model_folder: Path, device: str | None = None, weights: str | None = None) -> dict[str, Critic]:
    """The critics in the subfolders `critics/<name>` of a model's folder, by name; none if there are none.

    Args:
        model_folder: of the denoiser.
        device: such as 'cuda'; a GPU if there is one when not given.
        weights: digest of the denoiser's weights; that of the folder's model.safetensors if not given.

    Raises:
        RedraftError: one is damaged, or was trained for other weights than the denoiser's.
    """
    folders = sorted(path.parent for path in (model_folder / "critics").glob("*/config.json"))
    for folder in folders:
        wanted = read_config(folder).get("denoiser")
        if wanted and wanted != (weights or digest(model_folder)):
            raise RedraftError(f"{folder} was trained for other weights than those in {model_folder}: train it again")
    return {folder.name: load_critic(folder, device) for folder in folders}


def _zero_linear(width: int) -> nn.Linear:
    """A linear layer (width to 1) that gives 0."""
    linear = nn.Linear(width, 1)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
