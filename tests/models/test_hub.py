"""Models in the hub's layout: the right adapter, no code that was not asked for, and one sentence for what is wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

import redraft
from redraft import RedraftError
from redraft.core.errors import require
from redraft.core.state import State
from redraft.models import hub

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "."]
# As code for transformers 4 is: a name that is gone, no post_init, ties without arguments, frequencies in no file.
REMOTE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils.import_utils import is_torch_fx_available

class TinyConfig(PretrainedConfig):
    model_type = "tiny-remote"
    def __init__(self, vocab_size=12, **more):
        self.vocab_size, self.rope_theta, self.head_dim = vocab_size, 16.0, 4
        super().__init__(**more)

class Rotary(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.rope_init_fn = config, ROPE_INIT_FUNCTIONS["default"]
        inv_freq, self.attention_scaling = self.rope_init_fn(config, None)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

class {name}(PreTrainedModel):
    config_class = TinyConfig
    def __init__(self, config):
        super().__init__(config)
        self.table, self.rotary = nn.Embedding(config.vocab_size, config.vocab_size), Rotary(config)
    def _init_weights(self, module):
        pass
    def tie_weights(self):
        pass
    def forward(self, input_ids=None, attention_mask=None, position_ids=None, timesteps=None, return_dict=None,
                use_cache=None):
        assert not self.config.use_cache
        return MaskedLMOutput(logits=self.table(input_ids) * 4 * self.rotary.inv_freq[1])  # which is 1/4
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT with its tokenizer."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    path = tmp_path_factory.mktemp("bert") / "tiny-bert"
    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer.from_pretrained(str(path)).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, initializer_range=0.7,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(path)
    return path


def remote(path, name, **config):
    """A folder whose network's code comes with it."""
    path.mkdir()
    source = REMOTE.format(name=name)
    kind = {"MDLM": "AutoModelForMaskedLM", "LLaDA2MoeModelLM": "AutoModelForCausalLM"}.get(name, "AutoModel")
    (path / "modeling_tiny.py").write_text(source + f"\nimport pathlib\npathlib.Path({str(path / 'ran')!r}).touch()\n")
    auto = {"AutoConfig": "modeling_tiny.TinyConfig", kind: f"modeling_tiny.{name}"}
    about = {"architectures": [name], "model_type": "tiny-remote", "auto_map": auto, "vocab_size": 12, **config}
    (path / "config.json").write_text(json.dumps(about))
    from safetensors.torch import save_file

    table = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    save_file({"table.weight": table}, path / "model.safetensors", {"format": "pt"})
    return table


def one_row(x):
    x = torch.tensor([x])
    return State(x, torch.ones(x.shape), torch.zeros(x.shape, dtype=torch.bool), torch.arange(1))


# ---- what is loaded


def test_a_folder_of_transformers_is_loaded_with_its_tokenizer(bert):
    model = redraft.load_model(str(bert), device="cpu", length=9)
    assert (model.name, model.shape, model.convention.mask) == ("tiny-bert", (9,), 4)
    assert model.convention.forbidden == (0, 1, 2, 3, 4)
    assert model.text(torch.tensor([[2, 5, 6, 7, 4, 3, 0]])) == ["the cat sat"]
    prediction = model.predict(one_row([2, 5, 4, 3]))
    assert prediction.logits.shape == (1, 4, 12)
    assert not prediction.logits.requires_grad
    assert (
        redraft.load_model(str(bert), device="cpu", dtype="bfloat16").predict(one_row([2, 4])).logits.dtype
        == torch.bfloat16
    )


def test_the_law_of_a_row_does_not_depend_on_its_batch(bert):
    """From prompts of two lengths to logits, with a real tokenizer."""
    model = redraft.load_model(str(bert), device="cpu")
    texts = ["the cat", "a cat sat on the mat"]
    together = model.predict(redraft.prompts(model, texts, 3).state()).logits
    for row, text in enumerate(texts):
        alone = model.predict(redraft.prompts(model, [text], 3).state()).logits[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "mask", "shifted"),
    [("MDLM", 11, False), ("LLaDAModelLM", 7, False), ("DreamModel", 7, True), ("LLaDA2MoeModelLM", 7, False)],
)
def test_code_that_comes_with_weights_runs_only_on_demand(tmp_path, monkeypatch, name, mask, shifted):
    import transformers.dynamic_module_utils as modules

    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "transformers_modules", raising=False)
    monkeypatch.setattr(hub, "FAMILIES", {k: hub.Family(f.adapter, f.auto) for k, f in hub.FAMILIES.items()})
    folder = tmp_path / name
    table = remote(folder, name, **({} if name == "MDLM" else {"mask_token_id": 7}))
    with pytest.raises(RedraftError, match="Python code of its own, which runs only by load_model.*remote_code=True"):
        redraft.load_model(str(folder), device="cpu")
    assert not (folder / "ran").exists()
    model = redraft.load_model(str(folder), device="cpu", remote_code=True)
    assert (model.convention.mask, model.convention.shifted) == (mask, shifted)
    logits = model.predict(one_row([1, 2, 3])).logits[0, 2]
    kept = [i for i in range(12) if i != mask]
    assert torch.equal(logits[kept], table[2 if shifted else 3, kept])


def test_code_that_cannot_be_run_is_one_sentence(tmp_path):
    remote(tmp_path / "dream", "DreamModel", mask_token_id=7)
    about = json.loads((tmp_path / "dream" / "config.json").read_text())
    about["auto_map"].pop("AutoModel")
    (tmp_path / "dream" / "config.json").write_text(json.dumps(about))
    refused("comes with no class for AutoModel", tmp_path / "dream", remote_code=True)
    (tmp_path / "dream" / "modeling_tiny.py").write_text("import no_such_package")
    refused("cannot be loaded by the code that comes with it: .*no_such_package", tmp_path / "dream", remote_code=True)


def test_importing_redraft_imports_neither_transformers_nor_diffusers():
    code = "import sys, redraft; redraft.load_model; redraft.prompts; redraft.guided; import redraft.models.hub"
    code += "; assert not {'transformers', 'diffusers', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


# ---- what is refused


def refused(match, name, **options):
    with pytest.raises(RedraftError, match=match) as caught:
        redraft.load_model(str(name), device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_is_not_supported_names_those_that_are(tmp_path):
    for kind in ("LlamaForCausalLM", "NobodysForMaskedLM"):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [kind]}))
        refused(
            f"is a {kind}, which is not supported; these are: MDLM, .*AmusedPipeline and every ...ForMaskedLM", tmp_path
        )
    (tmp_path / "config.json").write_text(json.dumps({"architectures": []}))
    refused("no stated architecture", tmp_path)


def test_options_are_checked(bert):
    refused("unknown option 'lenght'; did you mean 'length'", bert, lenght=3)
    refused("unknown dtype 'float7'", bert, dtype="float7")
    refused("unknown dtype 'int8'", bert, dtype="int8")
    refused("mask id 99 is outside the vocabulary of 12 tokens", bert, mask=99)
    refused("length is an option of models of the Hugging Face hub, not of 'sudoku'", "sudoku", length=3)


def test_a_package_that_is_missing_is_named_with_the_extra(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(r"transformers is not installed: pip install 'redraft\[text\]'", bert)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RedraftError, match=r"diffusers is not installed: pip install 'redraft\[diffusers\]'"):
        hub.pretrained("a/b", "UVit2DModel", "diffusers")


def test_weights_that_are_missing_or_pickled_are_one_sentence(bert, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    refused("cannot be loaded by transformers.AutoModelForMaskedLM", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    refused("cannot be loaded by transformers.AutoModelForMaskedLM", tmp_path)


def test_a_folder_without_a_tokenizer_needs_a_mask_and_gives_no_prompts(bert, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    refused("has no mask token that is known", tmp_path)
    model = redraft.load_model(str(tmp_path), device="cpu", mask=4)
    with pytest.raises(RedraftError, match="has no tokenizer, which prompts need"):
        redraft.prompts(model, ["the cat"])
    assert redraft.load_model(str(tmp_path), device="cpu", tokenizer=str(bert)).convention.mask == 4


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("GatedRepoError", "is gated: accept its terms"),
        ("RepositoryNotFoundError", "neither a folder here nor a public model"),
        ("RevisionNotFoundError", "has no revision 'v2'"),
        ("RemoteEntryNotFoundError", "has neither config.json nor model_index.json"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(monkeypatch, error, match):
    library = require("huggingface_hub", "text")
    kind = getattr(require("huggingface_hub.errors", "text"), error)

    def answer(*args, **given):
        raise kind.__new__(kind)

    monkeypatch.setattr(library, "hf_hub_download", answer)
    refused(match, "nobody/nothing", revision="v2")


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch, tmp_path):
    constants = require("huggingface_hub.constants", "text")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(
        "'nobody/nothing' is not a folder here, is not in the cache, and the .* hub cannot be reached", "nobody/nothing"
    )
    monkeypatch.setattr(
        require("huggingface_hub", "text"),
        "hf_hub_download",
        lambda *a, **b: (_ for _ in ()).throw(OSError("no route")),
    )
    refused("hub cannot be reached", "nobody/nothing")
