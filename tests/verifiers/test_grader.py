"""The grader against servers of its own that fail, dawdle, refuse, and answer out of order."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image
from toys import toy_problems

import redraft
from redraft import RedraftError
from redraft.samplers import Parallel
from redraft.testing import check_verifier
from redraft.verifiers import Batched, Grader, VerifierError, grader
from redraft.verifiers.grader import ASPECTS, parsed, retry_after, spread

USAGE = {"prompt_tokens": 100, "completion_tokens": 10}


def picture_in(body):
    """The numbers of the picture that a request holds, pixel by pixel."""
    header, data = body["messages"][0]["content"][1]["image_url"]["url"].split(",")
    assert header in ("data:image/png;base64", "data:image/jpeg;base64")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)


def brightness(body):
    return float(picture_in(body).double().mean()) / 255


def grades(body):
    """Honest work: 9 times the brightness, and 1 more in accuracy for cats."""
    grade = round(9 * brightness(body), 4)
    text = body["messages"][0]["content"][0]["text"]
    return dict.fromkeys(ASPECTS, grade) | {"accuracy": grade + (" cat" in text)}


def message(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": USAGE}


def honest(body, number):
    return message(json.dumps(grades(body)))


@contextmanager
def endpoint(reply):
    """A server that answers request number n with `reply(body, n)`: a status, JSON or bytes, and perhaps headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.seen)
                server.seen.append(body)
                server.times.append(time.monotonic())
                server.keys.append(self.headers["Authorization"])
                server.paths.append(self.path)
            status, answer, *headers = reply(body, number)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            server.keys.append(self.headers["Authorization"])
            self.send_error(405)

        def log_message(self, *args):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args):
            pass  # a client that went away

    server = Quiet(("127.0.0.1", 0), Handler)
    server.lock, server.seen, server.times, server.keys, server.paths = threading.Lock(), [], [], [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def asked(n, prompts=None):
    """Pictures of one brightness each, in no order, and problems with prompts."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    pictures = (order / n)[:, None, None, None].expand(n, 3, 4, 6).contiguous()
    problems = toy_problems([0] * n)
    problems.facts["prompt"] = prompts or ["a dog"] * n
    return pictures, problems


def made(server, **options):
    return Grader("some-model", server.url, **{"key": "secret", "wait": 0.001} | options)


def expected(pictures, problems):
    bright = (pictures * 255).round().flatten(1).mean(1).double() / 255
    cat = torch.tensor([" cat" in text for text in problems.facts["prompt"]])
    return 9 * bright + cat.double() / 5


# ---- scores


def test_scores_are_the_mean_grades_in_the_pictures_order_whatever_comes_back_first():
    def slow(body, number):
        time.sleep(0.03 * (7 - number % 8))  # the first of a batch answers last
        return honest(body, number)

    pictures, problems = asked(16, ["a dog", "a cat"] * 8)
    with endpoint(slow) as server:
        verifier = made(server, threads=8)
        scores = verifier(pictures, problems)
    assert scores.tolist() == pytest.approx(expected(pictures, problems).tolist(), abs=1e-3)
    assert len(server.seen) == 16
    assert set(server.paths) == {"/v1/chat/completions"}
    assert set(server.keys) == {"Bearer secret"}


def test_requests_are_made_at_the_same_time_but_no_more_than_allowed():
    under_way, most, lock = [0], [0], threading.Lock()

    def counting(body, number):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        with lock:
            under_way[0] -= 1
        return honest(body, number)

    with endpoint(counting) as server:
        made(server, threads=3)(*asked(9))
    assert most[0] == 3


def test_a_request_holds_the_model_the_prompt_the_picture_and_the_schema():
    pictures, problems = asked(2, ["two cats on a roof"] * 2)
    with endpoint(honest) as server:
        verifier = made(server, options={"temperature": 0})
        each = verifier.grades(pictures, problems)
    body = server.seen[0]
    assert (body["model"], body["temperature"]) == ("some-model", 0)
    assert "two cats on a roof" in body["messages"][0]["content"][0]["text"]
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(each) == schema["required"] == list(ASPECTS)
    assert (each["accuracy"] - each["quality"]).tolist() == pytest.approx([1, 1])


def test_pictures_go_without_loss_unless_jpeg_is_asked_for():
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sent = []

    def keep(body, number):
        sent.append(picture_in(body))
        return honest(body, number)

    problems = asked(1)[1]
    with endpoint(keep) as server:
        made(server)(picture, problems)
        made(server, encoding="jpeg")(picture, problems)
    exact = (picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).flatten()
    assert torch.equal(sent[0], exact)
    assert not torch.equal(sent[1], exact)


def test_gray_pictures_and_videos_are_graded_and_frames_averaged():
    gray = torch.tensor([0.2, 0.6]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    video = torch.tensor([0.0, 0.2, 0.4, 0.6]).reshape(1, 4, 1, 1, 1).expand(2, 4, 3, 4, 4)
    problems = asked(2)[1]
    with endpoint(honest) as server:
        assert made(server)(gray, problems).tolist() == pytest.approx([1.8, 5.4], abs=1e-3)
        assert made(server)(video, problems).tolist() == pytest.approx([3.6, 3.6], abs=1e-3)
        assert made(server, frames=2)(video, problems).tolist() == pytest.approx([3.6, 3.6], abs=1e-3)
    assert len(server.seen) == 2 + 1 + 2


def test_it_passes_the_contract_and_counts_a_call_a_sample_in_a_run():
    from toys import Toy

    class Pictures(Toy):
        def decode(self, x):
            return (x[:, :3, :1, None] / 4 + 0.5).clamp(0, 1)

    pictures, problems = asked(3, ["a dog", "a cat", "a cow"])
    with endpoint(honest) as server:
        check_verifier(made(server), pictures, problems)
        result = redraft.run(
            redraft.BestOfN(n=3, sampler=Parallel(4)), Pictures(), problems, verifier=made(server), progress=False
        )
    assert result.ledger.verifier_calls.tolist() == [3, 3, 3]


# ---- failures that pass


def test_failures_that_pass_are_tried_again_and_orders_are_kept():
    def flaky(body, number):
        return (
            (429, {"error": {"message": "slow down"}}),
            (503, b"<html>busy</html>"),
            (200, b"{broken"),
            message("I would rather not say."),
            message('{"accuracy": 11}'),
            honest(body, number),
            honest(body, number),
        )[number % 7]

    pictures, problems = asked(12)
    with endpoint(flaky) as server:
        verifier = made(server, retries=40, threads=4)
        scores = verifier(pictures, problems)
    assert scores.tolist() == pytest.approx(expected(pictures, problems).tolist(), abs=1e-3)
    assert verifier.spent.retries == len(server.seen) - 12 > 12


def test_a_request_without_an_answer_in_time_is_made_again():
    def hanging(body, number):
        time.sleep(1.0 if number == 0 else 0)
        return honest(body, number)

    pictures, problems = asked(1)
    with endpoint(hanging) as server:
        verifier = made(server, timeout=0.2)
        assert verifier(pictures, problems).tolist() == pytest.approx(expected(pictures, problems).tolist(), abs=1e-3)
        assert verifier.spent.retries == 1


def test_waits_double_are_spread_and_obey_the_endpoint(monkeypatch):
    waits = []
    monkeypatch.setattr(threading.Event, "wait", wait_of(threading.Event.wait, waits))

    def busy(body, number):
        return (429, {}, {"Retry-After": "7"}) if number == 2 else (500, {}) if number < 5 else honest(body, number)

    with endpoint(busy) as server:
        made(server, wait=1.0)(*asked(1))
    assert len(waits) == 5
    assert waits[2] == 7
    for number in (0, 1, 3, 4):
        assert 0.5 * 2**number <= waits[number] < 2**number
    assert len({spread(str(i)) for i in range(50)}) == 50
    assert all(0.5 <= spread(str(i)) < 1 for i in range(50))
    assert spread("a 1") == spread("a 1")


def wait_of(real, waits):
    """Events that wait for seconds do not, and say for how long they would."""

    def wait(self, timeout=None):
        if timeout is None or threading.current_thread() is threading.main_thread():
            return real(self, timeout)
        if not threading.current_thread().name.startswith("ThreadPool"):
            return real(self, timeout)
        waits.append(timeout)
        return False

    return wait


def test_the_header_is_a_number_or_a_date():
    from email.utils import formatdate

    assert retry_after(None) == retry_after("soon") == retry_after("-3") == 0
    assert retry_after("2.5") == 2.5
    assert retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0


# ---- what grades look like


WHOLE = dict.fromkeys(ASPECTS, 5.0)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE),
        "Here you are:\n```json\n" + json.dumps(WHOLE, indent=2) + "\n```\nA {fine} picture.",
        'Some thoughts {"accuracy": 3} and then ' + json.dumps(WHOLE),
        json.dumps({name.title(): str(grade) for name, grade in WHOLE.items()}),
        json.dumps({name: {"score": grade, "why": "so"} for name, grade in WHOLE.items()}),
    ],
)
def test_grades_are_found_in_what_is_said(text):
    assert parsed(text, ASPECTS) == WHOLE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no object"),
        ("5, 5, 5, 5, 5", "holds no object"),
        ("[1, 2]", "holds no object"),
        (json.dumps({"accuracy": 5}), "holds no object"),
        (json.dumps(WHOLE | {"quality": 10.5}), "'quality' is graded 10.5, not 0 to 10"),
        (json.dumps(WHOLE | {"quality": -1}), "graded -1"),
        (json.dumps(WHOLE | {"quality": None}), "graded None"),
        (json.dumps(WHOLE | {"quality": True}), "graded True"),
        (json.dumps(WHOLE | {"quality": float("nan")}), "graded nan"),
    ],
)
def test_what_is_no_grade_is_told(text, words):
    with pytest.raises(ValueError, match=words):
        parsed(text, ASPECTS)


@pytest.mark.parametrize("status", [400, 422])
def test_an_endpoint_without_schemas_is_asked_without_them_from_then_on(status):
    def simple(body, number):
        if "response_format" in body:
            return status, {"error": {"message": "response_format is not supported"}}
        return message("Sure! " + json.dumps(grades(body)))

    pictures, problems = asked(4)
    with endpoint(simple) as server:
        verifier = made(server, threads=1)
        assert verifier(pictures, problems).tolist() == pytest.approx(expected(pictures, problems).tolist(), abs=1e-3)
    assert ["response_format" in body for body in server.seen] == [True, False, False, False, False]


def test_aspects_of_ones_own():
    with endpoint(lambda body, number: message('{"Cuteness": 7, "fur": 4}')) as server:
        verifier = made(server, aspects={"cuteness": "it is cute", "fur": "it is soft"})
        assert verifier(*asked(2)).tolist() == [5.5, 5.5]
    assert "- fur: it is soft" in server.seen[0]["messages"][0]["content"][0]["text"]


# ---- the cache and the bill


def test_a_grader_is_known_by_what_it_asks_and_not_by_what_it_heard(tmp_path):
    pictures, problems = asked(2)
    with endpoint(honest) as server:
        verifier = made(server, cache=tmp_path / "grades.jsonl")
        before = verifier.mark
        verifier(pictures, problems)
        assert verifier.mark == before == made(server, threads=2, key="other").mark
        others = [{"aspects": {"quality": "sharp"}}, {"options": {"temperature": 0}}, {"encoding": "jpeg"}]
        marks = [before, *(made(server, **settings).mark for settings in others)]
        marks.append(Grader("another-model", server.url, key="secret").mark)
    assert len(set(marks)) == 5


def test_nothing_is_asked_twice_in_a_call_between_calls_or_between_runs(tmp_path):
    pictures, problems = asked(4)
    twice = torch.cat([pictures, pictures])
    both = type(problems).cat([problems, problems])
    with endpoint(honest) as server:
        verifier = made(server, cache=tmp_path / "new" / "grades.jsonl", price=(2.0, 10.0))
        scores = verifier(twice, both)
        assert torch.equal(scores[:4], scores[4:])
        assert len(server.seen) == 4
        assert torch.equal(verifier(pictures, problems), scores[:4])
        again = made(server, cache=tmp_path / "new" / "grades.jsonl")
        assert torch.equal(again(twice, both), scores)
        assert len(server.seen) == 4
        for other in ({"aspects": {"accuracy": "other"}}, {"options": {"temperature": 1}}, {"encoding": "jpeg"}):
            made(server, cache=tmp_path / "new" / "grades.jsonl", **other)(pictures[:1], problems[:1])
        problems.facts["prompt"][0] = "a cat"
        again(pictures[:1], problems[:1])
        assert len(server.seen) == 8
    spent = verifier.spent
    assert (spent.requests, spent.cached, spent.prompt_tokens, spent.completion_tokens) == (4, 8, 400, 40)
    assert spent.cost == pytest.approx((400 * 2 + 40 * 10) / 1e6)


def test_a_line_that_was_cut_off_is_left_out_and_the_next_is_whole(tmp_path):
    path = tmp_path / "grades.jsonl"
    pictures, problems = asked(3)
    with endpoint(honest) as server:
        made(server, cache=path)(pictures, problems)
        path.write_text(path.read_text()[:-9] + "")
        made(server, cache=path)(pictures, problems)
        assert len(server.seen) == 4
        made(server, cache=path)(pictures, problems)
        assert len(server.seen) == 4
    assert "secret" not in path.read_text()
    with pytest.raises(RedraftError, match="cannot be read and written"):
        Grader("some-model", cache=tmp_path)


# ---- failures that stay


def test_a_refused_key_is_one_sentence_and_not_tried_again():
    refused = 401, {"error": {"message": "Incorrect API key provided"}}
    with endpoint(lambda body, number: refused) as server:
        verifier = made(server, threads=1)
        with pytest.raises(RedraftError, match=r"refuses the key: set OPENAI_API_KEY or give key= \(Incorrect API key"):
            verifier(*asked(5))
    assert len(server.seen) == 1


def test_what_was_scored_before_a_failure_is_kept(tmp_path):
    pictures, problems = asked(6)

    def dies(body, number):
        return honest(body, number) if number < 3 else (402, {"detail": "no credit left"})

    with (
        endpoint(dies) as server,
        pytest.raises(RedraftError, match=r"402: no credit left; answers until then are kept"),
    ):
        made(server, threads=1, cache=tmp_path / "g.jsonl")(pictures, problems)
    with endpoint(honest) as server:
        verifier = made(server, cache=tmp_path / "g.jsonl")
        assert verifier(pictures, problems).tolist() == pytest.approx(expected(pictures, problems).tolist(), abs=1e-3)
    assert len(server.seen) == 3


def test_an_endpoint_that_is_down_is_one_sentence():
    with endpoint(honest) as server:
        pass
    with pytest.raises(RedraftError, match="cannot be reached or understood: ConnectionRefusedError"):
        made(server, retries=2)(*asked(2))


def test_an_endpoint_that_stays_busy_is_one_sentence():
    with endpoint(lambda body, number: (503, b"overloaded")) as server:
        with pytest.raises(RedraftError, match="still answers 503 after 3 requests: overloaded"):
            made(server, retries=2, threads=1)(*asked(2))
        assert len(server.seen) == 3


def test_a_picture_that_gets_no_grades_is_named_and_the_others_are_asked_about_and_kept():
    pictures, problems = asked(4)
    dark = int(pictures.flatten(1).mean(1).argmin())
    others = torch.tensor([i for i in range(4) if i != dark])
    first = torch.cat([torch.tensor([dark]), others])

    def prudish(body, number):
        return message("No.") if brightness(body) == 0 else honest(body, number)

    with endpoint(prudish) as server:
        verifier = made(server, retries=1, threads=1)
        with pytest.raises(VerifierError, match="got no grades from 'some-model'.*sample number 0"):
            verifier(pictures[first], problems[first])
        assert len(server.seen) == 2 + 3
        verifier(pictures[others], problems[others])
        assert len(server.seen) == 5
        for asking in (verifier, Batched(verifier, size=1)):
            with pytest.raises(VerifierError, match=f"sample number {dark}, for problem {100 + dark}") as caught:
                asking(pictures, problems)
            assert caught.value.row == dark
            assert torch.equal(caught.value.sample, pictures[dark])


def test_a_frame_that_gets_no_grades_names_its_video():
    video = torch.tensor([0.2, 0.4, 0.6, 0.8, 0.3, 0.0]).reshape(3, 2, 1, 1, 1).expand(3, 2, 3, 4, 4)

    def prudish(body, number):
        return message("No.") if brightness(body) == 0 else honest(body, number)

    with endpoint(prudish) as server, pytest.raises(VerifierError, match="sample number 2"):
        made(server, retries=0, frames=2)(video, asked(3)[1])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed_with_the_key(status):
    with endpoint(honest) as other:
        moved = status, {}, {"Location": other.url + "/chat/completions"}
        with endpoint(lambda body, number: moved) as server:
            with pytest.raises(RedraftError, match=f"request with {status}"):
                made(server)(*asked(1))
            assert server.keys == ["Bearer secret"]
        assert other.keys == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "file:///etc/passwd"}, "must begin with http"),
        ({"encoding": "gif"}, "unknown encoding 'gif'"),
        ({"threads": 0}, "threads is 0: it must be a whole number from 1 to"),
        ({"timeout": 0}, "timeout is 0: it must be a number above 0"),
        ({"retries": -1}, "retries is -1: it must be a whole number of 0 or more"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, words):
    with pytest.raises(RedraftError, match=words):
        Grader("some-model", **options)


def test_problems_without_prompts_and_samples_that_are_no_pictures():
    verifier = Grader("some-model", "http://127.0.0.1:9/v1")
    pictures, problems = asked(2)
    with pytest.raises(RedraftError, match=r"no facts\['prompt'\] to score by"):
        verifier(pictures, toy_problems([0, 0]))
    with pytest.raises(VerifierError, match="was given NaN or infinity .sample number 1"):
        verifier(pictures * torch.tensor([1, torch.nan])[:, None, None, None], problems)
    with pytest.raises(RedraftError, match="pictures are floats"):
        verifier(torch.zeros(2, 5), problems)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    with endpoint(honest) as server:
        verifier = Grader("some-model", server.url)
        verifier(*asked(1))
    assert server.keys == ["Bearer from-outside"]
    assert "from-outside" not in repr(verifier.endpoint)
    assert isinstance(redraft.load_verifier("grader", llm="some-model"), Grader)
    with pytest.raises(RedraftError, match="'grader' needs llm"):
        redraft.load_verifier("grader")
    assert grader.BEST == 10


def test_a_key_from_a_file_works_and_one_that_no_header_can_hold_is_refused_without_being_told():
    with endpoint(honest) as server:
        Grader("some-model", server.url, key="sk-SECRET\n")(*asked(1))
    assert server.keys == ["Bearer sk-SECRET"]
    for key in ("sk-SEC\nRET", "sk-SECRÉT", "sk-SEC\x00RET"):
        with pytest.raises(RedraftError, match="the key holds what no key does") as caught:
            Grader("some-model", key=key)
        assert "SEC" not in str(caught.value)
    verifier = Grader("some-model", "http://127.0.0.1:9/v1", key="secret", retries=0)
    verifier.endpoint.key = "sk-SECRET\n"
    with pytest.raises(RedraftError, match="cannot be reached or understood: ValueError") as caught:
        verifier(*asked(1))
    assert "SECRET" not in str(caught.value)
