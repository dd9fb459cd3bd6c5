"""Text verifiers on tiny networks of the real classes: against brute force, and on a classifier trained here."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from texts import FIRST, WORDS, decode, gpt2, roberta, tokenizer

from redraft import RedraftError
from redraft.core import errors
from redraft.core.content import content
from redraft.core.task import Problems
from redraft.verifiers import Batched, Classifier, Perplexity, VerifierError, text
from redraft.verifiers.text import EMPTY, toxicity


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("roberta")
    return str(path), roberta(path)


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2")
    return str(path), gpt2(path)


def samples(*texts):
    rows = [[WORDS.index(word) for word in row.split()] for row in texts]
    longest = max(map(len, rows))
    x = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return x, free(x)


def free(x):
    """Problems in which nothing is given."""
    return Problems(torch.arange(len(x)), torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool))


TEXTS = ("the dog is good", "bad", "the cat is not very bad", "a dog")


# ---- classifiers


@torch.no_grad()
def by_hand(net, words):
    """Logits of one text, without padding."""
    return net(input_ids=torch.tensor([[WORDS.index(word) for word in words.split()]])).logits[0].double()


def test_a_classifier_is_known_by_its_weights_its_label_and_its_words(classifier, tmp_path):
    path, _ = classifier
    one = Classifier(path, 0, decode, device="cpu")
    before = content(one)
    one(*samples(*TEXTS))  # which sets how its tokenizer cuts and fills up
    again = Classifier(path, 0, decode, device="cpu", rows=one.rows)
    assert content(one) == before == content(again)
    roberta(tmp_path / "moved")
    moved = Classifier(str(tmp_path / "moved"), 0, decode, device="cpu")
    assert content(moved) == before  # equal weights elsewhere
    moved._net.classifier.out_proj.bias.data[-1] += 1e-4
    others = [
        Classifier(path, 1, decode, device="cpu"),
        Classifier(path, 0, lambda x: ["a dog"] * len(x), device="cpu"),
    ]
    assert len({before, content(moved), *map(content, others)}) == 4


@pytest.mark.parametrize("label", [0, 1, "neutral", "Toxic"])
def test_a_score_is_the_log_probability_of_the_label(classifier, label):
    path, net = classifier
    scores = Batched(Classifier(path, label, decode, device="cpu"))(*samples(*TEXTS))
    number = label if isinstance(label, int) else int(label == "Toxic")
    expected = [float(by_hand(net, words).log_softmax(0)[number]) for words in TEXTS]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) == 4


def test_the_size_of_batches_changes_no_score(classifier):
    path, _ = classifier
    for rows in (1, 3):
        verifier = Classifier(path, 1, decode, device="cpu", rows=rows)
        assert Batched(verifier).size == rows
        again = Batched(verifier)(*samples(*TEXTS))
        assert again.tolist() == pytest.approx(Batched(verifier, size=4)(*samples(*TEXTS)).tolist(), abs=1e-5)


def test_a_text_that_shows_nothing_has_a_low_score_of_its_own(classifier, causal):
    x = torch.tensor([[4, 6], [0, 2], [0, 0]])
    for verifier in (Classifier(classifier[0], 1, decode, device="cpu"), Perplexity(decode, causal[0], device="cpu")):
        scores = verifier(x, free(x))
        assert scores[1:].tolist() == [EMPTY, EMPTY]
        assert scores[0] > EMPTY
        assert verifier(x[1:], free(x[1:])).tolist() == [EMPTY, EMPTY]
        verifier.empty = -3.0
        assert verifier(x, free(x))[1:].tolist() == [-3.0, -3.0]


def test_of_a_long_text_the_end_is_judged_and_that_is_said_once(tmp_path):
    net = roberta(tmp_path, positions=6, spread=0.4)
    verifier = Classifier(str(tmp_path), 1, decode, device="cpu")
    whole = "the dog is not a bad"
    expected, shorter = (float(by_hand(net, words).log_softmax(0)[1]) for words in (whole, whole[4:]))
    assert verifier(*samples(whole)).item() == pytest.approx(expected, abs=1e-6)
    with pytest.warns(
        UserWarning, match=f"the classifier '{tmp_path}' reads 6 tokens and was given a text of 10: .* the end"
    ):
        scores = verifier(*samples(whole, f"cat good bad very {whole}"))
    assert scores.tolist() == pytest.approx([expected] * 2, abs=1e-6)
    assert abs(expected - shorter) > 1e-4
    verifier(*samples(f"cat {whole}"))  # a second warning would fail


def test_a_text_that_is_cut_keeps_the_special_tokens_around_it(tmp_path):
    net = roberta(tmp_path, positions=6, spread=0.4, framed=True)
    verifier = Classifier(str(tmp_path), 1, decode, device="cpu")
    with pytest.warns(UserWarning, match="reads 6 tokens and was given a text of 8"):
        scores = verifier(*samples("the dog is not a bad"))
    expected = float(by_hand(net, "[BOS] is not a bad [EOS]").log_softmax(0)[1])
    assert scores.tolist() == pytest.approx([expected], abs=1e-6)


def prompted(prompt, *completions):
    """Samples of one prompt and as many completions of one length, a problem each."""
    x, problems = samples(*(f"{prompt} {completion}" for completion in completions))
    frozen = (torch.arange(x.shape[1]) < len(prompt.split())).expand_as(x).clone()
    return x, replace(problems, x=x, frozen=frozen)


def test_eight_completions_of_a_prompt_longer_than_the_classifier_reads_have_eight_scores(tmp_path):
    net = roberta(tmp_path, positions=6, spread=0.4)
    x, problems = prompted(" ".join(["dog"] * 20), *(f"the {a} is {b}" for a in ("dog", "cat") for b in WORDS[8:12]))
    for judged in ("completion", "all"):
        verifier = Classifier(str(tmp_path), 1, decode, judged=judged, device="cpu")
        if judged == "all":
            with pytest.warns(UserWarning, match="reads 6 tokens and was given a text of 24"):
                scores = Batched(verifier)(x, problems)
        else:
            scores = Batched(verifier)(x, problems)
            alone = float(by_hand(net, decode(x[:1, 20:])[0]).log_softmax(0)[1])
            assert scores[0].item() == pytest.approx(alone, abs=1e-6)
        assert len({round(score, 6) for score in scores.tolist()}) == 8


def test_equal_samples_of_problems_that_give_other_parts_of_them_have_scores_of_their_own(classifier):
    x, problems = samples("the dog is good", "the dog is good")
    problems = replace(problems, x=x, frozen=torch.tensor([[True, False, False, False], [True, True, True, False]]))
    net = classifier[1]
    scores = Batched(Classifier(classifier[0], 1, decode, device="cpu"))(x, problems)
    expected = [float(by_hand(net, words).log_softmax(0)[1]) for words in ("dog is good", "good")]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_labels_that_do_not_exclude_one_another_have_probabilities_of_their_own(tmp_path):
    net = roberta(tmp_path, labels=("rude", "vulgar", "cruel"), problem_type="multi_label_classification")
    scores = Classifier(str(tmp_path), "cruel", decode, device="cpu")(*samples(*TEXTS))
    expected = [float(by_hand(net, words)[2].sigmoid().log()) for words in TEXTS]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_classifier_with_one_output_is_a_reward_model(tmp_path):
    net = roberta(tmp_path, labels=("reward",))
    scores = Classifier(str(tmp_path), None, decode, device="cpu")(*samples(*TEXTS))
    assert scores.tolist() == pytest.approx([float(by_hand(net, words)[0]) for words in TEXTS], abs=1e-5)
    with pytest.raises(RedraftError, match="a single output: give label=None"):
        Classifier(str(tmp_path), 0, decode, device="cpu")


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("toxik", "unknown label 'toxik'; did you mean 'toxic'"),
        (2, "label is 2: there are 2, from 0 on"),
        (-1, "label is -1"),
        (None, "give a label: neutral, toxic"),
    ],
)
def test_a_label_that_there_is_not_is_refused(classifier, label, sentence):
    with pytest.raises(RedraftError, match=sentence):
        Classifier(classifier[0], label, decode, device="cpu")


def test_a_classifier_trained_here_finds_what_it_was_trained_for(tmp_path):
    """'bad' is toxic, 'good' is not; the score of lines that it has not seen follows."""
    net = roberta(tmp_path, spread=0.1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(6, len(WORDS), (128, 6), generator=generator)
    toxic = torch.arange(128) % 2
    place = torch.randint(6, (128,), generator=generator)
    x[torch.arange(128), place] = 4 + toxic
    with torch.enable_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        adam = torch.optim.AdamW(net.train().parameters(), 0.01)
        for _ in range(60):
            loss = net(input_ids=x[:96], labels=toxic[:96]).loss
            adam.zero_grad()
            loss.backward()
            adam.step()
    net.eval().save_pretrained(tmp_path)
    scores = Batched(toxicity_at(tmp_path))(x[96:], free(x[96:]))
    assert ((scores > math.log(0.5)) == toxic[96:].bool()).double().mean() >= 0.9
    clean = Batched(toxicity_at(tmp_path, label="neutral"))(x[96:], free(x[96:]))
    torch.testing.assert_close(scores.exp() + clean.exp(), torch.ones(32).double())


def toxicity_at(path, label=1):
    return Classifier(str(path), label, decode, device="cpu")


def test_presets_name_the_published_checkpoints(monkeypatch):
    asked = []
    monkeypatch.setattr(text, "Classifier", lambda model, label, read, **more: asked.append((model, label, read, more)))
    for make in (text.toxicity, text.toxicity_held_out, text.sentiment, text.cola, text.formality):
        make(decode, rows=4)
    toxicity(decode, label=0)
    assert asked == [
        ("s-nlp/roberta_toxicity_classifier", 1, decode, {"rows": 4}),
        ("textdetox/xlmr-large-toxicity-classifier", 1, decode, {"rows": 4}),
        ("cardiffnlp/twitter-roberta-base-sentiment", 2, decode, {"rows": 4}),
        ("textattack/roberta-base-CoLA", 1, decode, {"rows": 4}),
        ("cointegrated/roberta-base-formality", 1, decode, {"rows": 4}),
        ("s-nlp/roberta_toxicity_classifier", 0, decode, {}),
    ]


# ---- perplexity


@torch.no_grad()
def token_by_token(net, words, context):
    """Mean log-probability of the words, each from a pass of its own over what the window shows of those before it."""
    ids, total = [2, *(WORDS.index(word) for word in words.split())], 0.0
    for i in range(1, len(ids)):
        # windows begin with the text, then end every half context
        end = next(e for e in range(context, 10**6, context // 2) if i < e)
        before = ids[max(0, min(end, len(ids)) - context) : i]
        logits = net(input_ids=torch.tensor([before])).logits[0, -1].double()
        total += float(logits.log_softmax(0)[ids[i]])
    return total / (len(ids) - 1)


def test_perplexity_is_that_of_a_loop_over_tokens(causal):
    path, net = causal
    scores = Batched(Perplexity(decode, path, device="cpu"))(*samples(*TEXTS))
    assert scores.tolist() == pytest.approx([token_by_token(net, words, 8) for words in TEXTS], abs=1e-5)
    net_says = [net(input_ids=torch.tensor([[2, 5]])).logits[0, 0].double().log_softmax(0)[5].item()]
    assert scores[1:2].tolist() == pytest.approx(net_says, abs=1e-5)  # one word, after the token that begins texts


def test_no_token_of_a_text_longer_than_the_context_is_left_out(causal):
    path, net = causal
    longer = [" ".join(WORDS[FIRST + (i * i + n) % 9] for i in range(n)) for n in (7, 8, 9, 11, 12, 13, 26)]
    for rows in (1, 3, 32):
        verifier = Perplexity(decode, path, device="cpu", rows=rows)
        scores = verifier(*samples(*longer))
        assert scores.tolist() == pytest.approx([token_by_token(net, words, 8) for words in longer], abs=1e-5)


def test_a_completion_is_scored_after_its_prompt_and_whose_tokens_are_not(causal):
    path, net = causal
    x, problems = prompted("the cat is", "not bad", "very good")
    mean = lambda words: token_by_token(net, words, 8) * len(words.split())  # noqa: E731
    after = [(mean(f"the cat is {words}") - mean("the cat is")) / 2 for words in ("not bad", "very good")]
    assert Perplexity(decode, path, device="cpu")(x, problems).tolist() == pytest.approx(after, abs=1e-5)
    alone = [token_by_token(net, words, 8) for words in ("not bad", "very good")]
    apart = Perplexity(decode, path, prompted=False, device="cpu")(x, problems)
    assert apart.tolist() == pytest.approx(alone, abs=1e-5)
    whole = Perplexity(decode, path, judged="all", device="cpu")(x, problems)
    assert whole.tolist() == pytest.approx([token_by_token(net, words, 8) for words in decode(x)], abs=1e-5)
    own = Perplexity(checkpoint=path, judged=lambda x, _: decode(x[:, 3:]), device="cpu")(x, problems)
    assert own.tolist() == pytest.approx(alone, abs=1e-5)
    assert min(abs(one - other) for one, other in zip(after, alone, strict=True)) > 1e-3


def test_of_a_prompt_longer_than_the_context_the_end_is_read(causal):
    path, net = causal
    words = " ".join(WORDS[FIRST + (i * i + 3) % 9] for i in range(15))
    x, problems = prompted(words, "not bad")
    ids = x[:, 9:]  # eight tokens are read, and the last two of them scored
    with torch.no_grad():
        logp = net(input_ids=ids).logits[0].double().log_softmax(-1)
    expected = sum(float(logp[i - 1, ids[0, i]]) for i in (6, 7)) / 2
    assert Perplexity(decode, path, device="cpu")(x, problems).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("context", [4, 5, 8, 1024])
@pytest.mark.parametrize("given", [0, 1, 3, 7, 8, 20])
def test_windows_score_every_token_once_in_the_context_there_is(context, given):
    for tokens in range(given, 60):
        windows = text._windows(tokens, context, given)
        assert [i for _, first, stop in windows for i in range(first, stop)] == list(range(given, tokens))
        for start, first, stop in windows:
            assert stop - start <= context - 1
            assert start == 0 or first - start >= context - 1 - context // 2
        assert len(windows) == (given < tokens) or tokens >= context


def test_a_tokenizer_that_begins_no_text_falls_back_on_its_end_or_is_refused(tmp_path):
    net = gpt2(tmp_path / "end", eos_token="[BOS]")
    scores = Perplexity(decode, str(tmp_path / "end"), device="cpu")(*samples(*TEXTS))
    assert scores.tolist() == pytest.approx([token_by_token(net, words, 8) for words in TEXTS], abs=1e-5)
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(WORDS), n_embd=4, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "none")
    tokenizer(tmp_path / "none")
    with pytest.raises(RedraftError, match="has no token that begins or ends a text"):
        Perplexity(decode, str(tmp_path / "none"), device="cpu")


def test_a_network_that_gives_nan_names_the_sample(causal):
    path, _ = causal
    verifier = Perplexity(decode, path, device="cpu")
    with torch.no_grad():
        verifier._net.transformer.wte.weight[7] = torch.nan  # 'cat': all that is read after it, and its own logit
    with pytest.raises(VerifierError, match="NaN or infinity .sample number 0"):
        Batched(verifier)(*samples("the cat is", "a dog"))


def test_tokens_around_a_text_are_for_classifiers_and_not_scored_twice(tmp_path):
    both = {"bos_token": "[BOS]", "eos_token": "[EOS]"}
    net = gpt2(tmp_path / "causal", framed=True, **both)
    scores = Perplexity(decode, str(tmp_path / "causal"), device="cpu")(*samples(*TEXTS))
    assert scores.tolist() == pytest.approx([token_by_token(net, words, 8) for words in TEXTS], abs=1e-5)
    net = roberta(tmp_path / "classifier", framed=True)
    scores = Classifier(str(tmp_path / "classifier"), 1, decode, device="cpu")(*samples(*TEXTS))
    expected = [float(by_hand(net, f"[BOS] {words} [EOS]").log_softmax(0)[1]) for words in TEXTS]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


# ---- what is missing


def test_without_transformers_one_sentence_names_the_extra(monkeypatch, classifier):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    for make in (lambda: Classifier(classifier[0], 1, decode), lambda: Perplexity(decode)):
        with pytest.raises(RedraftError, match=r"transformers is not installed: pip install 'redraft\[text\]'"):
            make()


def test_a_folder_that_holds_no_model_is_one_sentence(tmp_path):
    with pytest.raises(RedraftError, match="cannot be loaded by transformers.AutoTokenizer"):
        Classifier(str(tmp_path), 1, decode)


def test_counting_verifiers_imports_neither_tasks_nor_transformers():
    code = (
        "import sys, redraft.core.counting;"
        "print([m for m in sys.modules if m.startswith(('transformers', 'redraft.tasks', 'redraft.models'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
