"""Prompts of a file as a task."""

import networks
import pytest
import torch

import redraft
from redraft import RedraftError
from redraft.models.adapters import text
from redraft.testing import check_task

WORDS = ["<pad>", "<s>", "</s>", "<eos>", "the", "cat", "sat", "a", "on", "mat", "user:"]


class Tokenizer:
    """Words at spaces; nothing around a text."""

    pad_token_id, eos_token_id, mask_token_id, chat_template = 0, 3, None, "{...}"

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [WORDS.index(word) for word in text.split()]}

    def __len__(self):
        return len(WORDS)

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        return f"user: {messages[0]['content']}"


MODEL = text.llada(networks.Llada().requires_grad_(False), Tokenizer())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "the cat", "kind": "animal"}\n{"prompt": "a mat"}\n{"prompt": "the cat sat on"}\n')
    return str(path)


def test_the_first_prompts_are_given_with_what_the_file_says_of_them(file):
    task = redraft.load_task("prompts", file=file, new_tokens=2)
    problems = task.problems(2, model=MODEL)
    assert problems.x.tolist() == [[4, 5, networks.MASK, networks.MASK], [7, 9, networks.MASK, networks.MASK]]
    assert problems.facts == {"prompt": ["the cat", "a mat"], "kind": ["animal", ""]}
    other = task.problems(2, seed=1, model=MODEL)
    assert torch.equal(other.x, problems.x)
    assert set(other.ids.tolist()).isdisjoint(problems.ids.tolist())
    chat = redraft.load_task("prompts", file=file, new_tokens=1, chat=True).problems(1, model=MODEL)
    assert chat.x.tolist() == [[10, 4, 5, networks.MASK]]


def test_without_a_model_there_are_as_many_free_tokens_as_with_one(file):
    task = redraft.load_task("prompts", file=file, new_tokens=3)
    blank, made = task.problems(3), task.problems(3, model=MODEL)
    assert torch.equal((~blank.frozen).sum(1), (~made.frozen).sum(1))
    assert torch.equal(blank.ids, made.ids)
    check_task(task, torch.arange(9).reshape(3, 3))


@pytest.mark.parametrize(
    ("settings", "problems", "sentence"),
    [
        ({"file": None}, {}, "the task 'prompts' needs `file`, such as a text with a prompt a line"),
        ({"new_tokens": 0}, {}, "new_tokens is 0: it must be a whole number of 1 or more"),
        ({"kind": "txt"}, {}, "unknown set of prompts 'txt'; did you mean 'text'"),
        ({}, {"n": 4}, "mine.jsonl has 3 prompts and n is 4: ask for no more, and for more samples of each by"),
        ({}, {"n": 0}, "n is 0"),
        ({}, {"n": 1, "split": "tests"}, "unknown split 'tests'; did you mean 'test'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(file, settings, problems, sentence):
    with pytest.raises(RedraftError, match=sentence):
        redraft.load_task("prompts", **{"file": file} | settings).problems(**problems)
