"""Measure IterRef against a direct transcription of its paper's algorithm, in one run: bench/results/reward_speed.json.

The transcription takes one problem at a time, evaluates the reward of every candidate and of the current state at every
move, draws the reference set that the pseudo-code lists, and keeps no evaluation. Both make the same number of moves.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import torch
from measured import record

import redraft
from redraft import IterRef, Reward, preset
from redraft.core.counting import CountedModel, CountedVerifier
from redraft.core.ledger import Ledger
from redraft.core.streams import Streams
from redraft.samplers import descend
from redraft.verifiers import violations

PROBLEMS = 32
METHOD = IterRef((0.5, 0.0), 0.25, moves=4, candidates=4, reward=Reward(0.5), sampler=preset("ancestral", steps=32))


def transcribed(model: Any, given: Any, verifier: Any) -> tuple[int, int]:
    """Accepted moves, and network rows, of the algorithm as it is printed."""
    method, ledger, accepted = replace(METHOD, sampler=replace(METHOD.sampler, reuse=False)), Ledger(len(given)), 0
    counted, scores = CountedModel(model, ledger), CountedVerifier(verifier, given, ledger)
    state, streams = given.state(), Streams.root(0, given.ids)
    for i in range(len(given)):
        one, stream = state[i : i + 1], streams[i : i + 1]
        walk = method.sampler.init(counted, counted.process.prior(one, one.free, stream), stream)
        for level in method.levels:
            walk = descend(method.sampler, counted, walk, level, stream)
            for move in range(method.moves):
                here = stream.fold(f"level {level}").fold(move)
                moved = one_move(method, counted, walk, level, here, scores)
                walk, accepted = (moved, accepted + 1) if moved is not None else (walk, accepted)
        descend(method.sampler, counted, walk, 0.0, stream)
    return accepted, int(ledger.nfe.sum())


def one_move(method: IterRef, model: Any, walk: Any, level: float, streams: Streams, verifier: Any) -> Any:
    """The accepted candidate, or None."""
    pool = method._candidates(model, walk, method.candidates, level, streams)
    value = method.reward.value
    values = value(method.sampler, model, fresh(pool), streams.split(method.candidates), verifier)[1]
    now = value(method.sampler, model, fresh(walk), streams, verifier)[1]
    pick = int(streams.fold("pick").uniform((1,))[0, 0] * method.candidates)
    chosen = pool[torch.tensor([pick])]
    method._reference(model, chosen, level, streams.fold("reference"), verifier)
    chance = streams.fold("accept").uniform((1,))[0, 0].log()
    return fresh(chosen) if chance < (values[pick] - now[0]) / method.reward.alpha else None


def fresh(walk: Any) -> Any:
    """The walk without what its last evaluation left."""
    return replace(walk, seen=None, prediction=None)


@torch.no_grad()
def main() -> None:
    """Measure, print and store."""
    task, model = redraft.load_task("sudoku-tokens"), redraft.load_model("sudoku-tokens")
    given, verifier = task.problems(PROBLEMS, seed=5), violations(task)
    began = time.perf_counter()
    ours = redraft.run(METHOD, model, given, verifier=verifier, progress=False)
    seconds = time.perf_counter() - began
    moves = len(METHOD.levels) * METHOD.moves
    accepted = float(ours.trace["acceptance"].sum() * moves)
    began = time.perf_counter()
    theirs, rows = transcribed(model, given, verifier)
    slow = time.perf_counter() - began
    results = {
        "ours": {"seconds": seconds, "rows": int(ours.ledger.nfe.sum()), "accepted": accepted},
        "transcription": {"seconds": slow, "rows": rows, "accepted": theirs},
    }
    for found in results.values():
        found |= {f"{unit} per accepted move": found[unit] / found["accepted"] for unit in ("seconds", "rows")}
    results["ratio"] = {
        unit: results["transcription"][key] / results["ours"][key]
        for unit, key in (("seconds", "seconds per accepted move"), ("rows", "rows per accepted move"))
    }
    record("reward_speed", results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
