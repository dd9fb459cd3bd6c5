"""What verifiers of text are shown: completions up to their end, without prompts and padding; or what one asks for."""

import networks
import pytest
import torch
from toys import Toy

import redraft
from redraft import RedraftError
from redraft.core.reading import Reader, reader
from redraft.core.task import Problems
from redraft.models.adapters import text
from redraft.tasks.python import Python

WORDS = ["<pad>", "<s>", "</s>", "<eos>", "the", "cat", "sat", "a", "on", "mat", "dog"]
EOS = 3


class Tokenizer:
    """Words at spaces; <s> and </s> around a text; <eos> ends what is written."""

    pad_token_id, eos_token_id, mask_token_id = 0, EOS, None

    def __call__(self, text, add_special_tokens=True):
        ids = [WORDS.index(word) for word in text.split()]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}

    def __len__(self):
        return len(WORDS)

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(WORDS[i] for i in ids if i > EOS or not skip_special_tokens)


def model(**options):
    return text.llada(networks.Llada().requires_grad_(False), Tokenizer(), **options)


def written(problems, *rows):
    """Samples in which the rows' words stand at the free places."""
    x = problems.x.clone()
    x[~problems.frozen] = torch.tensor([WORDS.index(word) for row in rows for word in row.split()])
    return x


def read(problems, samples, judged="completion", source=None):
    return reader(source or model(), judged)(samples, problems)


PROMPTS = ["the cat", "a cat sat on the mat"]


def test_a_completion_has_no_prompt_no_padding_and_nothing_behind_its_end():
    problems = redraft.prompts(model(), PROMPTS, 4)
    samples = written(problems, "sat on a mat", "<eos> dog dog dog")
    assert read(problems, samples) == ["sat on a mat", ""]
    samples = written(problems, "sat <eos> dog <eos>", "dog on <eos> the")
    assert read(problems, samples) == ["sat", "dog on"]
    assert read(problems, samples, "all") == ["the cat sat", "a cat sat on the mat dog on"]
    assert read(problems[1:], samples[1:]) == ["dog on"]


def test_padding_is_not_shown_whatever_stands_there():
    problems = redraft.prompts(model(), PROMPTS, 1)
    samples = written(problems, "sat", "dog")
    samples[~problems.cond["visible"]] = WORDS.index("dog")
    assert read(problems, samples, "all") == ["the cat sat", "a cat sat on the mat dog"]


def test_padding_that_looks_like_an_end_ends_nothing():
    """As of models without a padding token of their own, here before a row in which nothing is given."""
    x = torch.tensor([[EOS, EOS, WORDS.index("the"), WORDS.index("dog")]])
    visible = torch.tensor([[False, False, True, True]])
    problems = Problems(torch.arange(1), x, ~visible, {"visible": visible})
    assert read(problems, x) == read(problems, x, "all") == ["the dog"]


def test_an_end_inside_a_prompt_ends_nothing():
    problems = redraft.prompts(model(), ["the <eos> cat"], 2)
    samples = written(problems, "sat on")
    assert read(problems, samples, "all") == ["the cat sat on"]
    assert read(problems, samples) == ["sat on"]


def test_a_text_with_gaps_is_judged_whole():
    problems = redraft.prompts(model(), ["the [MASK] sat", "[MASK] sat on [MASK]"], infill=True)
    samples = written(problems, "dog", "dog mat")
    assert read(problems, samples) == read(problems, samples, "all") == ["the dog sat", "dog sat on mat"]
    ended = written(problems, "<eos>", "<eos> <eos>")  # only behind all that is given does it end the text
    assert read(problems, ended) == ["the sat", "sat on"]
    assert Reader(model().text, "prompt", (EOS,), (2, EOS))(samples, problems) == ["", ""]


def test_one_gap_at_the_end_is_a_completion_and_at_the_start_a_text():
    problems = redraft.prompts(model(), ["the cat [MASK]", "[MASK] cat sat"], infill=True)
    samples = written(problems, "sat", "the")
    assert read(problems, samples) == ["sat", "the cat sat"]
    assert Reader(model().text, "prompt", (EOS,), (2, EOS))(samples, problems) == ["the cat", ""]


def test_a_task_without_prompts_is_judged_as_it_was():
    python = redraft.load_model("python", device="cpu")
    for kind in ("unconditional", "infilling"):
        problems = Python().problems(6, kind=kind)
        samples = Python().clean(6, seed=1) if kind == "unconditional" else problems.facts["original"]
        assert read(problems, samples, source=python) == python.text(samples)


def test_what_is_judged_may_be_a_function_of_samples_and_problems():
    problems = redraft.prompts(model(), PROMPTS, 1)
    samples = written(problems, "sat", "dog")
    shout = lambda x, some: [prompt.upper() for prompt in some.facts["prompt"]]  # noqa: E731
    assert read(problems, samples, shout) == ["THE CAT", "A CAT SAT ON THE MAT"]


def test_a_model_s_text_stands_for_the_model_and_a_function_has_no_ends():
    problems = redraft.prompts(model(), ["the cat"], 3)
    samples = written(problems, "sat <eos> dog")
    assert read(problems, samples, source=model().text) == ["sat"]
    assert read(problems, samples, source=redraft.guided(model(), 2.0)) == ["sat"]
    plain = lambda x: [" ".join(WORDS[i] for i in row) for row in x.tolist()]  # noqa: E731
    bare = Problems(problems.ids, problems.x[:, :-1], problems.frozen[:, :-1])  # without the </s> behind it
    assert read(bare, samples[:, :-1], source=plain) == ["sat <eos> dog"]
    assert read(problems, samples, source=plain) == ["<s> the cat sat <eos> dog </s>"]  # something is given behind


@pytest.mark.parametrize(
    ("source", "judged", "sentence"),
    [
        (None, "completion", "was given no model: give the language model whose samples it judges"),
        (Toy(), "all", "was given a Toy, which writes no text"),
        (
            text.llada(networks.Llada()),
            "completion",
            "'llada' has no tokenizer, without which its samples are no texts",
        ),
        (model(), "completions", "unknown part of a text 'completions'; did you mean 'completion'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(source, judged, sentence):
    with pytest.raises(RedraftError, match=sentence):
        reader(source, judged)


def test_samples_of_others_and_samples_that_are_no_texts_are_refused():
    problems = redraft.prompts(model(), PROMPTS, 2)
    with pytest.raises(RedraftError, match="there are 1 samples for 2 problems"):
        read(problems, problems.x[:1])
    with pytest.raises(RedraftError, match="these samples are no texts but Tensors"):
        read(problems, problems.x, source=lambda x: x)
