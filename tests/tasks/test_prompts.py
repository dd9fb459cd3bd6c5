"""Prompts as problems: what is given, what is wanted, and padding on the left."""

import networks
import pytest
import torch
from networks import MASK
from toys import Toy

import redraft
from redraft import RedraftError
from redraft.methods.generate import Generate
from redraft.models.adapters import images, text

WORDS = ["<pad>", "<s>", "</s>", "<eos>", "the", "cat", "sat", "a", "on", "mat", "user:"]


class Tokenizer:
    """Words at spaces; <s> and </s> around a text."""

    pad_token_id, eos_token_id, mask_token_id = 0, 3, None
    chat_template = None

    def __call__(self, text, add_special_tokens=True):
        ids = [WORDS.index(word) for word in text.split()]
        return {"input_ids": [1, *ids, 2] if add_special_tokens else ids}

    def __len__(self):
        return len(WORDS)

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(WORDS[i] for i in ids if i > 3 or not skip_special_tokens)

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert (add_generation_prompt, tokenize) == (True, False)
        return f"user: {messages[0]['content']} <eos>"


def model(**options):
    return text.llada(networks.Llada().requires_grad_(False), Tokenizer(), **options)


def test_prompts_are_given_behind_padding_and_new_tokens_follow():
    problems = redraft.prompts(model(), ["the cat", "a cat sat on the mat"], new_tokens=2)
    assert problems.x.tolist() == [
        [0, 0, 0, 0, 1, 4, 5, MASK, MASK, 2],
        [1, 7, 5, 6, 8, 4, 9, MASK, MASK, 2],
    ]
    assert torch.equal(problems.frozen, problems.x != MASK)
    assert problems.cond["visible"].tolist() == [[False] * 4 + [True] * 6, [True] * 10]
    assert problems.ids.tolist() == [0, 1]
    assert problems.facts == {"prompt": ["the cat", "a cat sat on the mat"]}
    assert model().text(problems.x) == ["the cat", "a cat sat on the mat"]


def test_gaps_are_filled_in_place():
    problems = redraft.prompts(model(), ["the [MASK] sat", "[MASK][MASK] [MASK] a mat"], infill=True)
    assert problems.x.tolist() == [[0, 0, 1, 4, MASK, 6, 2], [1, MASK, MASK, MASK, 7, 9, 2]]
    assert torch.equal(problems.frozen, problems.x != MASK)
    assert redraft.prompts(model(), ["the _ sat"], infill=True, marker="_").x.tolist() == [[1, 4, MASK, 6, 2]]


def test_a_chat_template_takes_the_place_of_special_tokens():
    talker = model()
    talker.codec.tokenizer.chat_template = "{...}"
    assert redraft.prompts(talker, ["the cat"], 1, chat=True).x.tolist() == [[10, 4, 5, 3, MASK]]
    with pytest.raises(RedraftError, match="no chat template"):
        redraft.prompts(model(), ["the cat"], chat=True)


def test_a_fixed_length_is_filled():
    fixed = model(length=8)
    problems = redraft.prompts(fixed, ["the cat", "a"])
    assert problems.x.tolist() == [[1, 4, 5, MASK, MASK, MASK, MASK, 2], [0, 1, 7, MASK, MASK, MASK, MASK, 2]]
    assert redraft.prompts(fixed, ["a"], 2).x.tolist() == [[0, 0, 0, 1, 7, MASK, MASK, 2]]
    assert redraft.prompts(model(), ["a"]).x.shape == (1, 3 + 64)


@pytest.mark.parametrize(
    ("texts", "options", "match"),
    [
        ("the cat", {}, "put the one text into brackets"),
        ([], {}, "there are no prompts"),
        (["the cat sat on a mat"], {}, "no room for new tokens after a prompt of 8 tokens"),
        (["the cat"], {"new_tokens": 0}, "new_tokens is 0"),
        (["the cat"], {"new_tokens": 9}, "a row takes 13 tokens, and 'llada' works on 8"),
        (["the cat"], {"infill": True}, r"there is no \[MASK\] to fill in 'the cat'"),
    ],
)
def test_prompts_that_do_not_fit_are_one_sentence(texts, options, match):
    with pytest.raises(RedraftError, match=match):
        redraft.prompts(model(length=8), texts, **options)


def test_a_model_without_a_tokenizer_is_one_sentence():
    with pytest.raises(RedraftError, match="'llada' has no tokenizer"):
        redraft.prompts(text.llada(networks.Llada()), ["the cat"])


def test_classes_are_prompts_too():
    problems = redraft.prompts(images.halton(networks.Halton(), side=3, codebook=16), [1, 4])
    assert problems.cond["label"].tolist() == [1, 4]
    assert not problems.cond["dropped"].any()
    assert problems.x.shape == (2, 9)


def test_a_run_goes_on_from_prompts_and_each_ends_as_it_does_alone():
    for made in (model(), redraft.guided(model(), 2.0)):
        problems = redraft.prompts(made, ["the cat", "a cat sat on the mat", "a"], 4)
        result = redraft.run(Generate(), made, problems, progress=False)
        assert torch.equal(result.samples[problems.frozen], problems.x[problems.frozen])
        assert (result.samples != MASK).all()
        alone = redraft.run(Generate(), made, problems[1:2], progress=False)
        assert torch.equal(alone.samples, result.samples[1:2])
        assert made.text(result.samples)[0].startswith("the cat")


def test_a_run_takes_prompts_of_any_length_and_refuses_what_the_model_is_not_made_for():
    from redraft.core.run import _check

    problems = redraft.prompts(model(), ["the cat", "a"], 2)
    _check(model(), problems, None)
    with pytest.raises(RedraftError, match=r"values of shape \(6,\), but 'llada' works on \(8,\)"):
        _check(model(length=8), problems, None)
    with pytest.raises(RedraftError, match=r"works on \(6, 2\)"):
        _check(Toy(), problems, None)
