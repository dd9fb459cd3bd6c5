"""Tiny networks of random weights that read and write texts, in folders as the hub's are, and their tokenizer."""

import json

import torch
from safetensors.torch import save_file

WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "good", "bad", "dog", "cat", "the", "a", "is", "very", "not"]
FIRST = 4  # the first word that is shown


def decode(x):
    """The words of ids (B, R); what is below `FIRST` is not shown."""
    return [" ".join(WORDS[i] for i in row if i >= FIRST) for row in x.tolist()]


def tokenizer(path, framed=False, **special):
    """A tokenizer of whole words, saved; `framed` puts its own tokens around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        words.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", None, [("[BOS]", 2), ("[EOS]", 3)])
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", **special)
    fast.save_pretrained(path)


def saved(path, kind, config, **special):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = kind(config)
    net.save_pretrained(path)
    tokenizer(path, **special)
    return net.eval()


def roberta(path, positions=40, labels=("neutral", "toxic"), spread=0.8, framed=False, kind="Roberta", **more):
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=positions + 1, pad_token_id=0, bos_token_id=2, eos_token_id=3, initializer_range=spread,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)}, **more,
    )  # fmt: skip
    return saved(path, getattr(transformers, f"{kind}ForSequenceClassification"), config, framed=framed)


def gpt2(path, context=8, **special):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=context, n_embd=16, n_layer=1, n_head=2, initializer_range=0.8,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    return saved(path, GPT2LMHeadModel, config, **(special or {"bos_token": "[BOS]", "eos_token": "[EOS]"}))


# As the released code: a class that takes an attention mask, in a file that comes with the weights.
LLADA = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

class TinyConfig(PretrainedConfig):
    model_type = "llada"
    def __init__(self, vocab_size=14, **more):
        self.vocab_size = vocab_size
        super().__init__(**more)

class LLaDAModelLM(PreTrainedModel):
    config_class = TinyConfig
    def __init__(self, config):
        super().__init__(config)
        self.embed, self.mix = nn.Embedding(config.vocab_size, 8), nn.Linear(8, 24)
        self.head = nn.Linear(8, config.vocab_size)
    def _init_weights(self, module):
        pass
    def tie_weights(self, **more):
        pass
    def forward(self, input_ids=None, attention_mask=None, output_hidden_states=None, return_dict=None):
        h = self.embed(input_ids)
        q, k, v = self.mix(h).chunk(3, -1)
        place = torch.arange(input_ids.shape[1], device=h.device)
        scores = q @ k.mT + torch.sin(place[:, None] - place)
        if attention_mask is not None:
            scores = scores.masked_fill(attention_mask[:, None] == 0, -1e9)
        return CausalLMOutput(logits=self.head(h + scores.softmax(-1) @ v))
"""


def llada(path):
    """A tiny LLaDA whose code comes with it; the mask is the id behind the words."""
    path.mkdir()
    tokenizer(path, eos_token="[EOS]")
    (path / "modeling_tiny.py").write_text(LLADA)
    auto = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModel": "modeling_tiny.LLaDAModelLM"}
    about = {"architectures": ["LLaDAModelLM"], "model_type": "llada", "auto_map": auto, "vocab_size": len(WORDS) + 1}
    (path / "config.json").write_text(json.dumps(about | {"mask_token_id": len(WORDS), "eos_token_id": 3}))
    generator, size = torch.Generator().manual_seed(0), len(WORDS) + 1
    shapes = {"embed.weight": (size, 8), "mix.weight": (24, 8), "mix.bias": (24,)}
    shapes |= {"head.weight": (size, 8), "head.bias": (size,)}
    weights = {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}
    weights["head.bias"][:FIRST] -= 2  # it writes words more often than special tokens
    save_file(weights, path / "model.safetensors", {"format": "pt"})
