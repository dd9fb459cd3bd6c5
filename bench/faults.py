"""Inject faults and count what comes of them: `python bench/faults.py`, or with the kinds that are wanted.

Numbers go to bench/results/faults.json: for each kind of fault, for each thing that it was done to, how many were
`injected` and what came of them. All places and moments are drawn from `--seed`.

- kills: processes killed (SIGKILL) at a random moment, then started again.
- bits: one bit of a file flipped at a random place.
- files: files cut, emptied, exchanged for noise, for a pipe, a folder, a device.
- signals: as kills, by SIGTERM, which is taken as Ctrl-C.
- workers: the command of an experiment with two workers, killed; what is left of its processes.
- ray: the driver of a local Ray cluster, killed; what is left of it.
- values: every setting of methods, samplers, tasks, verifiers and recipes with wrong values (tests/fuzz.py), and runs
  with those that are accepted.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measured import measured, record
from torch import nn

import redraft
from redraft.bench import engine
from redraft.bench.experiment import checked
from redraft.bench.guard import users
from redraft.bench.plain import Map
from redraft.bench.plain import read as read_yaml
from redraft.bench.store import Store
from redraft.core.checkpoint import Checkpoint
from redraft.core.signals import ending
from redraft.models.nets.reader import Reader
from redraft.models.nets.transformer import Transformer
from redraft.models.weights import load_network, save_network
from redraft.tasks.digits import load_digits
from redraft.tasks.markov import Markov
from redraft.tasks.prompt_sets import load_prompts
from redraft.training.loop import Schedule, fit

SAME, OTHER, SENTENCE = "as without the fault", "ANOTHER RESULT", "refused in one sentence"
LONGEST = 20  # seconds, after which something hangs

Outcomes = dict[str, int]
Act = Callable[[], Any]


def tally(outcomes: Iterable[str]) -> Outcomes:
    """How many there were of each."""
    found = Counter(outcomes)
    return {"injected": found.total(), **dict(sorted(found.items()))}


def judged(act: Act, whole: Any) -> str:
    """What comes of it: the `whole` outcome, another one, a sentence, or what must not be."""
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(LONGEST)
    try:
        return SAME if act() == whole else OTHER
    except redraft.RedraftError as error:
        return SENTENCE if "\n" not in str(error) else "REFUSED IN SEVERAL LINES"
    except Hangs:
        return "HANGS"
    except Exception as error:
        return f"RAISES {type(error).__name__}"
    finally:
        signal.alarm(0)


class Hangs(BaseException):
    """It takes too long."""


def _hangs(*given: object) -> None:
    raise Hangs


# ---- what is harmed: small, but the library's own code in all


def run(folder: Path, seed: int = 0) -> Any:
    """A run with a checkpoint after every draft: samples, trace without seconds, ledger."""
    task = Markov(length=8)
    sampler = redraft.preset("ancestral", steps=4)
    method = redraft.IPR(12, ratio=0.5, initial=sampler, refine=sampler, keep=redraft.Disagreement())
    result = redraft.run(method, task.model, task.problems(4), seed=seed, checkpoint=folder, progress=False)
    return told(result)


def told(result: redraft.Result) -> Any:
    """All of a result but its seconds."""
    trace = {name: result.trace[name].tolist() for name in sorted(result.trace) if name != "seconds"}
    return result.samples.tolist(), repr(trace), result.ledger.totals()  # in which NaN equals NaN


def train(path: Path) -> Any:
    """Training with a checkpoint after every step: the weights."""
    torch.manual_seed(0)
    net = nn.Linear(6, 3)

    def loss(step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        return {"square": (net(x) - x[:, :3]).square().mean()}

    fit(net, loss, Schedule(80, every=-1), path, "faults")
    return {name: value.tolist() for name, value in net.state_dict().items()}


def network(place: Path) -> str:
    """The folder of a small network of random weights."""
    folder = place / "net"
    if not folder.exists():
        torch.manual_seed(0)
        net = Transformer(vocabulary=10, width=8, depth=1, heads=2, layout="board")
        save_network(net, folder, "", {"model": "sudoku-tokens"})
    return str(folder)


def experiment(folder: Path, place: Path | None = None) -> Any:
    """An experiment of a few cells: the bytes of all files but those of wall-clock time."""
    store, grid = Store(folder), checked(Map(GRID | {"model": [network(place or folder.parent.parent)]}, {}))
    store.open(grid)
    engine.run(grid, store, progress=False)
    paths = (path for path in sorted(folder.glob("cells/*/*")) if ".seconds." not in path.name)
    return {path.name: path.read_bytes() for path in paths}


GRID: dict[str, Any] = {
    "name": "faults", "task": "sudoku-tokens", "problems": {"n": 1, "difficulty": "easy"}, "shard": 1,
    "seeds": [*range(8)], "metrics": {"violations": "min"},
    "methods": {"one": {"method": "generate", "sampler": {"preset": "ancestral", "steps": 2}}},
}  # fmt: skip
WORK: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a run with a checkpoint": (run, "run.safetensors"),
    "training with a checkpoint": (lambda folder: train(folder / "net.safetensors"), "net.safetensors"),
    "an experiment": (experiment, ""),
}


def results(folder: Path) -> list[redraft.Result]:
    """Two results that differ in all files."""
    task = Markov(length=8)
    method = redraft.BestOfN(3, sampler=redraft.preset("ancestral", steps=4))
    given = {"verifier": lambda x, _: x.double().flatten(1).sum(1), "progress": False}
    return [redraft.run(method, task.model, task.problems(4), seed=seed, **given) for seed in (0, 1)]


# ---- kills and signals


def ended(work: Act, seconds: float, number: int) -> None:
    """Begin work in a process of its own, and send it a signal after so many seconds."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with ending():
                work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, number)
    os.waitpid(child, 0)


def interrupted(draw: random.Random, count: int, number: int) -> Iterator[tuple[str, Outcomes]]:
    """Each kind of work, ended at random moments of its time and begun again."""
    for name, (work, _) in WORK.items():
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            whole = work(new(place, "whole"))
            takes = time.perf_counter() - began
            outcomes = []
            for trial in range(count):
                folder = new(place, str(trial))
                ended(partial(work, folder), draw.uniform(0, 1.2 * takes), number)
                outcomes.append(judged(partial(work, folder), whole))
            yield name, tally(outcomes)


def new(place: str | Path, name: str) -> Path:
    """A folder."""
    folder = Path(place) / name
    folder.mkdir(parents=True)
    return folder


def saves(draw: random.Random, count: int) -> Outcomes:
    """Results saved over each other without end, killed: what is there then is the one or the other."""
    with tempfile.TemporaryDirectory() as place:
        pair, folder = results(Path(place)), Path(place) / "result"
        pair[0].save(folder)

        def work() -> None:
            while True:
                for result in reversed(pair):
                    result.save(folder)

        outcomes = []
        for _ in range(count):
            ended(work, draw.uniform(0, 0.05), signal.SIGKILL)
            known = [told(result) for result in pair]
            outcomes.append(judged(lambda known=known: told(redraft.Result.load(folder)) in known, True))
        return tally(outcomes)


def kills(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """SIGKILL."""
    return dict(interrupted(draw, count, signal.SIGKILL)) | {"a result saved over another": saves(draw, count)}


def signals(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """SIGTERM, a fifth as often."""
    return dict(interrupted(draw, max(1, count // 5), signal.SIGTERM))


# ---- processes that others start


def left(name: str, value: str) -> set[int]:
    """Ids of the processes that began with this variable in their environment."""
    found = set()
    for entry in (each for each in Path("/proc").iterdir() if each.name.isdigit()):
        try:
            if f"{name}={value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def gone(there: Callable[[], Any]) -> str:
    """Whether nothing is left after a while."""
    until = time.monotonic() + LONGEST
    while (still := there()) and time.monotonic() < until:
        time.sleep(0.1)
    return f"LEAVES {len(still)} PROCESSES" if still else "leaves no process"


def workers(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """SIGKILL and SIGTERM to `redraft bench run --workers 2`, a twentieth as often."""
    found = {}
    for number in (signal.SIGKILL, signal.SIGTERM):
        outcomes = [_workers(draw.uniform(0, 3), number) for _ in range(max(1, count // 20))]
        found[f"an experiment with two workers, {signal.Signals(number).name}"] = tally(outcomes)
    return found


def _workers(seconds: float, number: int) -> str:
    with tempfile.TemporaryDirectory() as place:
        whole = experiment(new(place, "whole"), Path(place))
        grid = GRID | {"model": [network(Path(place))]}
        (Path(place) / "grid.yaml").write_text("\n".join(f"{key}: {value!r}" for key, value in grid.items()))
        command = [sys.executable, "-m", "redraft.cli", "bench", "run", "grid.yaml", "--workers", "2", "--out", "out"]
        mark = ("REDRAFT_FAULTS", Path(place).name)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
        with subprocess.Popen(command, env=os.environ | dict([mark]), **quiet) as process:
            until = time.monotonic() + 4 * LONGEST
            while len(left(*mark)) < 3 and time.monotonic() < until:  # the command and its workers
                time.sleep(0.05)
            time.sleep(seconds)
            process.send_signal(number)
        rest = gone(lambda: left(*mark))
        again = judged(lambda: experiment(Path(place) / "out", Path(place)), whole)
        return rest if again == SAME else f"{rest}, then {again}"


DRIVER = """
import time, ray
from redraft.bench.cluster import Cluster
with Cluster("local")._connected(ray) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def ray(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """SIGKILL to a driver that has started a cluster, a twentieth as often."""
    outcomes = []
    for _ in range(max(1, count // 20)):
        command = [sys.executable, "-W", "ignore", "-c", DRIVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            folder = driver.stdout.readline().strip()
            time.sleep(draw.uniform(0, 3))
            driver.kill()
        outcomes.append(gone(lambda folder=folder: users(folder)))
    return {"the driver of a local Ray cluster": tally(outcomes)}


# ---- files


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit flipped."""
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def harmed(path: Path, harms: Iterable[Callable[[Path, bytes], None]], act: Act, whole: Any) -> Outcomes:
    """The file harmed in each of these ways in turn, and what comes of it; the file is put back."""
    content, outcomes = path.read_bytes(), []
    for harm in harms:
        _away(path)
        harm(path, content)
        outcomes.append(judged(act, whole))
        _away(path)
        path.write_bytes(content)
    return tally(outcomes)


def _away(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _copied(folder: Path, work: Callable[[Path], Any], name: str) -> Act:
    """Work that goes on from what stands for the checkpoint in the folder, moved to a new one: work writes its own."""

    def again() -> Any:
        new_one = Path(tempfile.mkdtemp(dir=folder.parent))
        os.rename(folder / name, new_one / name)
        return work(new_one)

    return again


def targets(place: Path) -> Iterator[tuple[str, Path, Act, Any]]:
    """What reads a file: what it is called, the file, the reading, and what it gives when the file is whole."""
    for name, (work, file) in WORK.items():
        if file:
            folder = new(place, name)
            whole = work(folder)
            yield f"{name}: the checkpoint", folder / file, _copied(folder, work, file), whole
    result = results(place)[0]
    result.save(place / "result")
    for path in sorted((place / "result").iterdir()):
        yield f"a saved result: {path.name}", path, lambda: told(redraft.Result.load(place / "result")), told(result)
    for name in ("images", "labels"):
        mnist = _mnist(place / f"mnist-{name}")
        path = next(mnist.glob(f"*{name}*"))
        yield f"MNIST, packed: {name}", path, lambda mnist=mnist: _digits(mnist), _digits(mnist)


def others(place: Path) -> Iterator[tuple[str, Path, Act, Any]]:
    """Files without checksums: networks, and texts, of which what is left is read."""
    save_network(Reader(), place / "net", "")
    for name in ("config.json", "model.safetensors"):
        yield f"a network: {name}", place / "net" / name, lambda: load_network(Reader, place / "net") is not None, True
    texts = {"prompts.txt": "a\nb\n", "prompts.csv": "Prompts,Category\na,x\n", "prompts.jsonl": '{"prompt": "a"}\n'}
    for name, text in texts.items():
        (place / name).write_text(text)
        yield f"a set of prompts: {name}", place / name, lambda name=name: bool(load_prompts(place / name)), True
    (place / "grid.yaml").write_text("name: a\nseeds: [1, 2]\n")
    yield "an experiment's YAML", place / "grid.yaml", lambda: read_yaml(place / "grid.yaml") is not None, True


def _mnist(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, shape in {"images-idx3": (20, 4, 4), "labels-idx1": (20,)}.items():
        head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        data = bytes(i % 10 for i in range(int(torch.tensor(shape).prod())))
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + data))
    return folder


def _digits(folder: Path) -> Any:
    digits = load_digits("train", str(folder))
    return digits.images.tolist(), digits.labels.tolist()


def bits(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """Flipped bits, five times as often, in each file that has a checksum."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name, path, act, whole in targets(Path(place)):
            size = 8 * path.stat().st_size
            flips = [_flip(draw.randrange(size)) for _ in range(5 * count)]
            found[name] = harmed(path, flips, act, whole)
    return found


def _flip(place: int) -> Callable[[Path, bytes], None]:
    return lambda path, content: _wrote(path, flipped(content, place))


def _wrote(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def files(draw: random.Random, count: int) -> dict[str, Outcomes]:
    """Each file harmed in each way."""
    shares = [draw.random() for _ in range(3)]
    harms: list[Any] = [
        *(lambda path, content, share=share: _wrote(path, content[: int(share * len(content))]) for share in shares),
        lambda path, content: _wrote(path, b""),
        lambda path, content: _wrote(path, draw.randbytes(len(content))),
        lambda path, content: _wrote(path, bytes(len(content))),
        lambda path, content: os.mkfifo(path),
        lambda path, content: path.mkdir(),
        lambda path, content: path.symlink_to("/dev/zero"),
    ]
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name, path, act, whole in (*targets(Path(place)), *others(Path(place))):
            found[name] = harmed(path, harms, act, whole)
    return found


def values(_: random.Random, count: int) -> dict[str, Outcomes]:
    """What comes of wrong values."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import fuzz

    words = {"sentence": SENTENCE, "nameless": f"{SENTENCE} about something else", "right": "kept as it was meant"}
    words |= {"ran": "runs", "trace": "STACK TRACE", "wrong": "KEPT AS SOMETHING ELSE"}
    made = Counter({words[what]: number for what, number in fuzz.counts().items()})
    ran = (case.runs(value) for case, value in fuzz.accepted())
    return {
        f"{len(fuzz.cases())} settings, made with {len(fuzz.VALUES)} values each": tally(made.elements()),
        "runs with values that were accepted": tally(words[what] for what in ran),
    }


KINDS = {
    "kills": kills, "signals": signals, "bits": bits, "files": files, "workers": workers, "ray": ray, "values": values,
}  # fmt: skip


def main() -> None:
    """Inject, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all if none is named")
    parser.add_argument("--count", type=int, default=100, help="kills of each kind of work")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    Checkpoint.__init__.__defaults__ = (0.0,)  # after every draft
    for kind in asked.kinds or KINDS:
        found = KINDS[kind](random.Random(f"{kind} {asked.seed}"), asked.count)
        for name, outcomes in found.items():
            print(kind, name, outcomes, flush=True)
        record("faults", measured("faults") | {kind: found})


if __name__ == "__main__":
    main()
