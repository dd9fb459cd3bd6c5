"""Measure what masked samplers cost, side by side: `python bench/masked_speed.py` writes masked_speed.json.

- forwards: evaluations of T = 1000 ancestral steps over 128 tokens, of a model without time input.
- own: time and peak memory of one step beside the network, 8 rows of 1024 tokens of 50,258 words, a tenth of them
  masked, against a plain dense step: float64 Gumbel noise for every word at every position.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from measured import record
from torch import Tensor

import redraft
from redraft import Generate, Unmask, preset
from redraft.core.state import State
from redraft.core.streams import Streams
from redraft.models.tokens import Convention, TokenModel
from redraft.tasks.markov import Markov

ROWS, LENGTH, WORDS, STEPS, REPEATS = 8, 1024, 50_258, 1000, 3


def forwards() -> float:
    """Evaluations as a share of the steps."""
    task = Markov(length=128)
    result = redraft.run(Generate(preset("ancestral", steps=STEPS)), task.model, task.problems(16), progress=False)
    return float(result.ledger.nfe.double().mean()) / STEPS


def scene() -> tuple[Tensor, State]:
    """Logits (B, L, V) and a state with a tenth of the tokens masked."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, LENGTH, WORDS, generator=generator)
    x = torch.randint(WORDS - 1, (ROWS, LENGTH), generator=generator)
    x = x.masked_fill(torch.rand(x.shape, generator=generator) < 0.1, WORDS - 1)
    return logits, State(x, torch.ones(x.shape), torch.zeros_like(x, dtype=torch.bool), torch.arange(ROWS))


def dense(logits: Tensor, state: State) -> Tensor:
    """A plain ancestral step: every word of every position gets its noise."""
    noise = -(-torch.rand(logits.shape, dtype=torch.float64).log()).log()
    logits = logits.double()
    logits[:, :, -1] = -torch.inf
    drawn = (logits.log_softmax(-1) + noise).argmax(-1)
    reveal = (state.x == WORDS - 1) & (torch.rand(state.x.shape) < 0.01)
    return torch.where(reveal, drawn, state.x)


def ours(name: str) -> Callable[[Tensor, State], Tensor]:
    """One step of a preset, the network's evaluation replaced by the logits."""

    def step(logits: Tensor, state: State) -> Tensor:
        model = TokenModel("scene", lambda x, s: (logits, None), Convention(WORDS, WORDS - 1))
        sampler: Unmask = preset(name, steps=100)
        streams = Streams.root(0, torch.arange(ROWS))
        walk = sampler.init(model, state, streams)
        return sampler.step(model, walk, streams).state.x

    return step


def own(name: str) -> tuple[float, float]:
    """Seconds of a step, and gigabytes above what the logits take, at their highest."""
    logits, state = scene()
    step = dense if name == "dense" else ours(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        step(logits, state)
        times.append(time.perf_counter() - began)
    return statistics.median(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def main() -> None:
    """Measure, print and store."""
    results: dict[str, object] = {"forwards": forwards()}
    for name in ("dense", "ancestral", "entropy", "maskgit", "p2"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a process of its own for its peak
            seconds, gigabytes = pool.submit(own, name).result()
        results[name] = {"seconds": round(seconds, 3), "gigabytes": round(gigabytes, 3)}
        print(name, results[name], flush=True)
    record("masked_speed", results)


if __name__ == "__main__":
    main()
