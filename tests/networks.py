"""Tiny networks with the calls of published models whose code is not in any library, and states to call them with.

Each forward has the parameters of the published one and refuses what that one would refuse.
"""

from types import SimpleNamespace

import torch
from torch import nn

from redraft.core.state import State

VOCABULARY, MASK = 12, 11


class Attending(nn.Module):
    """One layer of attention; places count by their distance, or absolutely where positions are given."""

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=VOCABULARY, mask_token_id=MASK, **config)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed = nn.Embedding(VOCABULARY, 8)
            self.place = nn.Embedding(64, 8)
            self.mix = nn.Linear(8, 24)
            self.head = nn.Linear(8, VOCABULARY)

    def logits(self, ids, allowed=None, positions=None):
        """(B, R, V) and (B, R, 8), for keys `allowed` (B, 1, R, R) to each query, and `positions` (B, R)."""
        h = self.embed(ids) + (0 if positions is None else self.place(positions))
        q, k, v = self.mix(h).chunk(3, -1)
        number = torch.arange(ids.shape[1])
        scores = q @ k.mT + torch.sin(number[:, None] - number)
        if allowed is not None:
            scores = scores.masked_fill(~allowed[:, 0], -torch.inf)
        h = h + scores.softmax(-1) @ v
        return self.head(h), h


def output(logits, h, wanted):
    return SimpleNamespace(logits=logits, hidden_states=(h * 0, h) if wanted else None)


class Llada(Attending):
    def forward(
        self, input_ids=None, inputs_embeds=None, attention_mask=None, attention_bias=None, past_key_values=None,
        labels=None, use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None,
        cache_position=None,
    ):  # fmt: skip
        allowed = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        return output(*self.logits(input_ids, allowed), output_hidden_states)


class DeafLlada(Attending):
    """Takes an attention mask and ignores it."""

    def forward(self, input_ids=None, attention_mask=None, output_hidden_states=None):
        return output(*self.logits(input_ids), output_hidden_states)


class Dream(Attending):
    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
        labels=None, use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None,
        cache_position=None, num_logits_to_keep=0,
    ):  # fmt: skip
        full = isinstance(attention_mask, str) and attention_mask == "full"
        assert full or (attention_mask.dtype == torch.bool and attention_mask.ndim == 4)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        logits, h = self.logits(input_ids, None if full else attention_mask, position_ids)
        return output(torch.cat([logits[:, 1:], logits[:, :1] * 0], 1), h, output_hidden_states)


class Llada2(Attending):
    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
        labels=None, use_cache=None, output_attentions=None, output_hidden_states=None, output_router_logits=None,
        return_dict=None,
    ):  # fmt: skip
        rows, size = input_ids.shape
        assert attention_mask.shape == (rows, 1, size, size)
        assert attention_mask.is_floating_point()
        return output(*self.logits(input_ids, attention_mask == 0, position_ids), output_hidden_states)


class Mdlm(Attending):
    def forward(self, input_ids=None, timesteps=None, output_hidden_states=None, return_dict=None):
        assert timesteps.shape == input_ids.shape[:1]
        assert not timesteps.any()
        logits, h = self.logits(input_ids)
        return output(logits, h, output_hidden_states) if return_dict else logits


class Halton(nn.Module):
    """A grid of ids, a class, and whether it is dropped; 16 codes, the mask 16, 5 classes."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.code, self.label = nn.Embedding(17, 8), nn.Embedding(6, 8)
            self.near = nn.Conv2d(8, 8, (1, 3), padding=(0, 1))

    def forward(self, x, y, drop_label, mask=None):
        assert drop_label.dtype == torch.bool
        h = self.code(x) + self.label(torch.where(drop_label, 5, y))[:, None, None]
        h = self.near(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (h @ self.code.weight.T).flatten(1, 2)


def state_of(rows, mask=MASK, **cond):
    """A state of rows of ids: masks are free, all else is given."""
    x = torch.tensor(rows)
    masked = x == mask
    return State(x, masked.float(), ~masked, torch.arange(len(x)), cond)


def padded(row, places, filler=0, mask=MASK):
    """The row with so many places of padding on its left, above a row without."""
    length = len(row) + places
    visible = torch.arange(length) >= torch.tensor([places, 0])[:, None]
    return state_of([[filler] * places + row, [1 + i % 7 for i in range(length)]], mask, visible=visible)
