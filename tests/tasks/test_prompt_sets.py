"""Sets of prompts: each published layout, and files that are not what they should be."""

import pipelines
import pytest
from pipelines import PLAIN, embeddings, made

import redraft
from redraft import RedraftError
from redraft.tasks.prompt_sets import load_prompts


def written(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_drawbench_is_a_table_of_prompts_and_categories(tmp_path):
    text = 'Prompts,Category\r\nA red car.,Colors\r\n"One cat, and ""two"" dogs.",Counting\r\n\r\n,Counting\r\n'
    found = load_prompts(written(tmp_path, "drawbench.csv", text))
    assert found.texts == ["A red car.", 'One cat, and "two" dogs.']
    assert found.facts == {"category": ["Colors", "Counting"]}
    assert (found.name, found.repeated) == ("drawbench", 0)


def test_quotation_marks_of_partiprompts_are_the_prompts_own(tmp_path):
    rows = [
        "Prompt\tCategory\tChallenge\tNote",
        "bond\tAbstract\tBasic\tBiology",
        '"G I G" in thick paint\tArts\tWriting\t',
    ]
    found = load_prompts(written(tmp_path, "PartiPrompts.tsv", "\n".join(rows)))
    assert found.texts == ["bond", '"G I G" in thick paint']
    assert found.facts == {
        "category": ["Abstract", "Arts"], "challenge": ["Basic", "Writing"], "note": ["Biology", ""]
    }  # fmt: skip


def test_t2i_compbench_is_a_folder_of_categories(tmp_path):
    written(tmp_path, "color_val.txt", "a green bench\r\na red car\r\n")
    written(tmp_path, "3d_spatial_val.txt", "a dog in front of a desk\n\n a red car \n")
    written(tmp_path, "color_train.txt", "not this")
    written(tmp_path, "color_val_seen.txt", "nor this")
    found = load_prompts(tmp_path)
    assert found.texts == ["a dog in front of a desk", "a red car", "a green bench", "a red car"]
    assert found.facts["category"] == ["3d_spatial", "3d_spatial", "color", "color"]
    alone = load_prompts(tmp_path / "color_val.txt", "t2i-compbench")
    assert alone.facts["category"] == ["color", "color"]


def test_plain_lines_and_json_lines(tmp_path):
    found = load_prompts(written(tmp_path, "mine.txt", "\ufeffa cat\n\n  a dog  \na cat\n"))
    assert (found.texts, found.facts, found.repeated) == (["a cat", "a dog"], {}, 1)
    lines = '{"prompt": "a cat", "category": "animal", "level": 3}\n\n{"prompt": "a car"}\n{"prompt": " a car"}\n'
    found = load_prompts(written(tmp_path, "mine.jsonl", lines))
    assert (found.texts, found.repeated) == (["a cat", "a car"], 1)
    assert found.facts == {"category": ["animal", ""], "level": ["3", ""]}


def test_problems_of_a_set_know_its_facts(tmp_path):
    found = load_prompts(written(tmp_path, "a.csv", "Prompts,Category\na,Colors\nb,Text\n"))
    model = redraft.load_model(made(pipelines.stable_diffusion), example=embeddings(0, *PLAIN))
    encode = lambda texts: {name: value.repeat(len(texts), 1, 1) for name, value in embeddings(0, *PLAIN).items()}  # noqa: E731
    object.__setattr__(model, "condition", encode)
    problems = found.problems(model)
    assert problems.facts == {"prompt": ["a", "b"], "category": ["Colors", "Text"]}
    assert problems[1:].facts["category"] == ["Text"]


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("a.csv", "Text,Category\na,b\n", None, "no column 'Prompts' but Text, Category; DrawBench is a sheet"),
        ("a.csv", "", None, "no column 'Prompts' but none; DrawBench"),
        ("a.csv", "Prompts,Category\n", None, "there are no prompts in .*a.csv; DrawBench is a sheet"),
        ("a.tsv", "Prompts\tCategory\n", None, "no column 'Prompt' but .*PartiPrompts.tsv is in https://github.com"),
        ("a.txt", "\n \n", None, "there are no prompts in"),
        ("a.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', None, "line 2 of .*a.jsonl is not of the form"),
        ("a.jsonl", '["a"]\n', None, "line 1 of"),
        ("a.jsonl", "a cat\n", None, "line 1 of"),
        ("a.txt", "a", "drawbenhc", "unknown set of prompts 'drawbenhc'; did you mean 'drawbench'"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_one_sentence(tmp_path, name, text, kind, words):
    with pytest.raises(RedraftError, match=words) as caught:
        load_prompts(written(tmp_path, name, text), kind)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_sentence(tmp_path):
    with pytest.raises(RedraftError, match="cannot be read: No such file.*PartiPrompts.tsv is in"):
        load_prompts(tmp_path / "PartiPrompts.tsv")
    with pytest.raises(RedraftError, match="there are no prompts in .*T2I-CompBench, in examples/dataset"):
        load_prompts(tmp_path)
    for name in ("a.txt", "a.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00prompt")
        with pytest.raises(RedraftError, match="not a text file in UTF-8"):
            load_prompts(tmp_path / name)
