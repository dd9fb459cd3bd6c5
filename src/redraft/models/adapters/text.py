"""Masked language models: how each family is called, and what its logits are about.

| family | weights | logits at i are about | mask | padding is hidden by |
|---|---|---|---|---|
| `masked_lm` | BERT, RoBERTa, ModernBERT, ESM, ... | token i | the tokenizer's | attention mask, position ids |
| `mdlm` | kuleshov-group/mdlm-owt | token i | 50257 | rows of one length at a time |
| `llada` | GSAI-ML/LLaDA-8B-Base, -Instruct | token i | 126336 | attention mask (rotary positions) |
| `dream` | Dream-org/Dream-v0-Base-7B, -Instruct-7B | token i + 1 | 151666 | 4D attention mask, position ids |
| `llada2` | inclusionAI/LLaDA2.0-mini, LLaDA2.1-mini, -flash | token i | 156895 | block-causal 4D mask, position ids |

All give raw logits, at revealed tokens too, and none is told the noise level. The networks are arguments, so that any
module with the same call will do; `redraft.load_model` finds them on the hub.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.core.errors import RedraftError
from redraft.core.state import State
from redraft.models.adapters.padding import blocks, by_length, hidden_by, pairs, positions
from redraft.models.tokens import Convention, Forward, TokenModel

# They count positions over the tokens that are not padding, from an offset of their own.
COUNT_THEMSELVES = {"camembert", "data2vec-text", "esm", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}  # fmt: skip # noqa: E501

# Padding reaches their other tokens whatever is told them: by convolutions, Fourier transforms, or their own positions.
READ_ALL = {"convbert", "fnet", "ibert", "mobilebert", "mra", "nystromformer", "yoso"}

ANY_LENGTH = 10**9  # tokenizers without a limit say one that is larger still


@dataclass(frozen=True)
class TextCodec:
    """Between ids and strings.

    Attributes:
        tokenizer: of the transformers library.
    """

    tokenizer: Any

    def __call__(self, samples: Tensor) -> list[str]:
        """Strings of ids (B, R), without special tokens and without ids that the tokenizer does not know."""
        known = [[i for i in row if i < len(self.tokenizer)] for row in samples.tolist()]
        return [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in known]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without special tokens around them."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat(self, text: str) -> str:
        """What a user says, in the template that the model was tuned on, up to where the answer begins.

        Raises:
            RedraftError: the tokenizer has no such template.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise RedraftError("this model's tokenizer has no chat template: leave out chat=True")
        messages = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the model expects before and after a text."""
        plain, framed = self.encode("a"), list(self.tokenizer("a")["input_ids"])
        starts = [i for i in range(len(framed)) if framed[i : i + len(plain)] == plain]
        return (framed[: starts[0]], framed[starts[0] + len(plain) :]) if starts else ([], [])

    @property
    def padding(self) -> int:
        """The id that fills short rows."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(i for i in ids if i is not None))


def masked_lm(
    net: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "masked-lm",
    mask: int | None = None,
    length: int | None = None,
    features: bool = False,
) -> TokenModel:
    """A `...ForMaskedLM` of transformers: BERT, RoBERTa, ModernBERT, ESM and their kin.

    Special tokens are never drawn. ESM-2 scales its input by the share of tokens that are not masked, so a row must
    keep at least one: the <cls> and <eos> that `redraft.prompts` puts around a sequence are enough.

    Args:
        net: the network, ready to evaluate.
        tokenizer: of transformers; without one there are no prompts and no strings.
        name: how errors call it.
        mask: id of the mask token, if neither the configuration nor the tokenizer knows it.
        length: R, if it is to be fixed.
        features: show the last hidden states (B, R, D), for critics.

    Raises:
        RedraftError: no mask token is known, or it is outside the vocabulary.
    """
    config: Any = net.config
    counts = config.model_type in COUNT_THEMSELVES
    takes_positions = "position_ids" in inspect.signature(net.forward).parameters

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        visible = hidden_by(state)
        if visible is None:
            return _called(net, features, input_ids=x, attention_mask=torch.ones_like(x))
        if counts:
            x = x.masked_fill(~visible, config.pad_token_id)
        given = {} if counts else {"position_ids": positions(visible)}
        return _called(net, features, input_ids=x, attention_mask=visible.long(), **given)

    hides = (counts or takes_positions) and config.model_type not in READ_ALL
    call = forward if hides else by_length(lambda x: _called(net, features, input_ids=x))
    convention = Convention(config.vocab_size, _mask(name, mask, net, tokenizer), forbidden=_special(net, tokenizer))
    return _model(name, net, tokenizer, call, convention, length, features)


def mdlm(
    net: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "mdlm",
    mask: int | None = None,
    length: int | None = None,
    features: bool = False,
) -> TokenModel:
    """MDLM (Sahoo et al. 2024): `net(input_ids, timesteps)` gives raw logits, without the paper's substitution.

    The class has no attention mask, so rows of each length go through it on their own. Arguments as of `masked_lm`.

    Raises:
        RedraftError: the mask is outside the vocabulary, or the network was trained with a time input.
    """
    config: Any = net.config
    if getattr(config, "time_conditioning", False):
        raise RedraftError(f"{name!r} is conditioned on time, and only MDLM's networks without that are supported")

    def call(x: Tensor) -> tuple[Tensor, Tensor | None]:
        zeros = torch.zeros(len(x), device=x.device)
        return _called(net, features, input_ids=x, timesteps=zeros, return_dict=True)

    mask, ends = _mask(name, mask, net, tokenizer, config.vocab_size - 1), _ends(net, tokenizer)
    convention = Convention(config.vocab_size, mask, ends=ends)
    return _model(name, net, tokenizer, by_length(call), convention, length, features)


def llada(
    net: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "llada",
    mask: int | None = None,
    length: int | None = None,
    features: bool = False,
    forbid_eos: bool = False,
) -> TokenModel:
    """LLaDA (Nie et al. 2025): bidirectional, no shift, no time; guidance masks the prompt.

    Code released before July 2025 takes an attention mask and ignores it (ML-GSAI/LLaDA, issues 89 and 90). That is
    tried here on two tokens, and rows of each length then go through such a network on their own.

    Args:
        net: called with input_ids and attention_mask.
        tokenizer: as of `masked_lm`, like the other arguments.
        name: how errors call it.
        mask: id of the mask token; 126336 in the released weights.
        length: R, if it is to be fixed.
        features: show the last hidden states.
        forbid_eos: the end-of-text token is never drawn: `logits_eos_inf` of the authors' generate(), for answers that
            must fill all the room there is; as there, EoT can still be. Their `confidence_eos_eot_inf` is the sampler's
            `preset("llada", ends_last=True)`.

    Raises:
        RedraftError: the mask is outside the vocabulary, or the end-of-text token is not known.
    """
    config: Any = net.config
    convention = Convention(
        config.vocab_size,
        _mask(name, mask, net, tokenizer, 126336),
        forbidden=(_eos(name, net, tokenizer),) if forbid_eos else (),
        ends=_ends(net, tokenizer, 126081, 126348),
    )

    def call(x: Tensor, visible: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        given = {} if visible is None else {"attention_mask": visible.long()}
        return _called(net, features, input_ids=x, **given)

    def masked(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        return call(x, hidden_by(state))

    forward = masked if _reads_mask(net) else by_length(call)
    model = _model(name, net, tokenizer, forward, convention, length, features)
    return replace(model, null=lambda state: state.to(state.x.masked_fill(state.frozen, convention.mask), state.t))


def dream(
    net: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "dream",
    mask: int | None = None,
    length: int | None = None,
    features: bool = False,
) -> TokenModel:
    """Dream (Ye et al. 2025): grown from an autoregressive model, so its logits at i are about the token at i + 1.

    `net(input_ids, attention_mask, position_ids)` takes the string "full" where nothing is hidden, else a boolean mask
    (B, 1, R, R). Arguments as of `masked_lm`.

    Raises:
        RedraftError: the mask is outside the vocabulary.
    """
    config: Any = net.config

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        visible = hidden_by(state)
        if visible is None:
            return _called(net, features, input_ids=x, attention_mask="full", position_ids=None)
        logits, shown = _called(
            net, features, input_ids=x, attention_mask=pairs(visible), position_ids=positions(visible)
        )
        return _first_again(logits, visible), shown

    mask, ends = _mask(name, mask, net, tokenizer, 151666), _ends(net, tokenizer, 151643, 151645)
    convention = Convention(config.vocab_size, mask, shifted=True, ends=ends)
    return _model(name, net, tokenizer, forward, convention, length, features)


def llada2(
    net: nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "llada2",
    mask: int | None = None,
    length: int | None = None,
    features: bool = False,
    block: int = 32,
) -> TokenModel:
    """LLaDA2.0 and 2.1 (inclusionAI 2025): a mixture of experts that looks at its own block and at those before.

    A token sees nothing after its block, so one pass over the whole row gives each block what the authors' loop over
    growing windows gives it; a last block that is not full is filled up with masks, as theirs is. It was trained to
    fill the blocks from left to right: sample it in blocks of `block`.

    Args:
        net: called with input_ids, an additive mask (B, 1, R, R) and position_ids.
        tokenizer: as of `masked_lm`, like the other arguments.
        name: how errors call it.
        mask: id of the mask token; 156895 in the released weights.
        length: R, if it is to be fixed.
        features: show the last hidden states.
        block: tokens in a block, counted from a row's first visible one.

    Raises:
        RedraftError: the mask is outside the vocabulary, or `block` is less than 1.
    """
    if block < 1:
        raise RedraftError(f"block is {block}: it must be 1 or more")
    config: Any = net.config
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    mask, ends = _mask(name, mask, net, tokenizer, 156895), _ends(net, tokenizer, 156892)
    convention = Convention(config.vocab_size, mask, ends=ends)

    def forward(x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        visible, size = hidden_by(state), x.shape[1]
        visible = torch.ones_like(x, dtype=torch.bool) if visible is None else visible
        short = int((-visible.sum(1) % block).max())
        x, visible = F.pad(x, (0, short), value=convention.mask), F.pad(visible, (0, short), value=True)
        allowed = blocks(visible, block)
        bias = torch.zeros(allowed.shape, dtype=dtype, device=x.device).masked_fill(~allowed, -torch.inf)
        logits, shown = _called(
            net, features, input_ids=x, attention_mask=bias, position_ids=positions(visible), use_cache=False
        )
        return logits[:, :size], None if shown is None else shown[:, :size]

    return replace(_model(name, net, tokenizer, forward, convention, length, features), block=block)


def _model(
    name: str,
    net: nn.Module,
    tokenizer: Any,
    forward: Forward,
    convention: Convention,
    length: int | None,
    features: bool,
) -> TokenModel:
    codec, most = None if tokenizer is None else TextCodec(tokenizer), _positions(net, tokenizer)
    return TokenModel(name, forward, convention, length, codec, features=features, net=net, positions=most)


def _positions(net: nn.Module, tokenizer: Any) -> int | None:
    """The most tokens of a row by the network's configuration, or the tokenizer's if that does not say."""
    config: Any = net.config
    for name in ("max_position_embeddings", "max_sequence_length", "model_length"):
        most = getattr(config, name, None)
        if isinstance(most, int) and most > 0:
            counts = getattr(config, "model_type", None) in {*COUNT_THEMSELVES, "ibert"}
            return most - (int(config.pad_token_id) + 1 if counts else 0)
    most = getattr(tokenizer, "model_max_length", None)
    return most if isinstance(most, int) and 0 < most < ANY_LENGTH else None


def _called(net: nn.Module, features: bool, **given: Any) -> tuple[Tensor, Tensor | None]:
    """Logits (B, R, V), and the last hidden states (B, R, D) if they are wanted."""
    output = net(**given, **({"output_hidden_states": True} if features else {}))
    return output.logits, output.hidden_states[-1] if features else None


def _mask(name: str, given: int | None, net: nn.Module, tokenizer: Any, default: int | None = None) -> int:
    places = (given, getattr(net.config, "mask_token_id", None), getattr(tokenizer, "mask_token_id", None), default)
    mask = next((i for i in places if i is not None), None)
    if mask is None:
        raise RedraftError(f"{name!r} has no mask token that is known: name its id by mask=...")
    return int(mask)


def _special(net: nn.Module, tokenizer: Any) -> tuple[int, ...]:
    """Ids of all special tokens that lie in the vocabulary."""
    config: Any = net.config
    ids = [getattr(config, f"{role}_token_id", None) for role in ("pad", "bos", "eos", "cls", "sep")]
    ids += getattr(tokenizer, "all_special_ids", [])
    return tuple(sorted({i for i in ids if isinstance(i, int) and 0 <= i < config.vocab_size}))


def _ends(net: nn.Module, tokenizer: Any, *released: int) -> tuple[int, ...]:
    """Ids that end a text: what the network and the tokenizer say, and those of the `released` weights."""
    said = getattr(net.config, "eos_token_id", None)
    ids = [*(said if isinstance(said, list | tuple) else [said]), getattr(tokenizer, "eos_token_id", None), *released]
    vocabulary = int(net.config.vocab_size)  # type: ignore[union-attr, arg-type]
    return tuple(sorted({i for i in ids if isinstance(i, int) and 0 <= i < vocabulary}))


def _eos(name: str, net: nn.Module, tokenizer: Any) -> int:
    places = (getattr(net.config, "eos_token_id", None), getattr(tokenizer, "eos_token_id", None))
    eos = next((i for i in places if isinstance(i, int)), None)
    if eos is None:
        raise RedraftError(f"{name!r} has no end-of-text token that is known, so forbid_eos has no meaning")
    return eos


@torch.no_grad()
def _reads_mask(net: nn.Module) -> bool:
    """Whether hiding the first of two tokens changes what the network says of the second."""
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    x = torch.tensor([[1, 2]], device=device)
    both = torch.tensor([[1, 1], [0, 1]], device=device)
    whole, hidden = (net(input_ids=x, attention_mask=visible[None]).logits[:, 1] for visible in both)
    return not torch.equal(whole, hidden)


def _first_again(logits: Tensor, visible: Tensor) -> Tensor:
    """The logits of a row's first visible token repeated at the place before it.

    A shift moves them back to where they are, as it does at the start of a row without padding.
    """
    row = (~visible[:, 0]).nonzero()[:, 0]
    first = visible.long().argmax(1)[row]
    logits = logits.clone()
    logits[row, first - 1] = logits[row, first]
    return logits
