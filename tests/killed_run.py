"""A slow run with a checkpoint, to be killed: `python killed_run.py FOLDER` prints a line for each draft on disk."""

import sys

import redraft
from redraft import IPR, Budget, Disagreement, Sequential
from redraft.core.checkpoint import Checkpoint

METHOD = IPR(iterations=12, ratio=0.5, initial=Sequential(), refine=Sequential(overlap=0.5), keep=Disagreement())
GIVEN, SEED, BUDGET = [0, 1, 3, 5, 2], 9, Budget(nfe=80)


def evaluate(samples, problems):
    return {"first": samples[:, 0, 0]}


def arguments():
    from toys import toy_problems

    return {"problems": toy_problems(GIVEN), "seed": SEED, "budget": BUDGET, "evaluate": evaluate}


def main(folder):
    from toys import Toy

    Checkpoint.__init__.__defaults__ = (0.0,)  # write after every draft
    save = Checkpoint.save

    def told(self, finished):
        save(self, finished)
        print(finished.draft.number, flush=True)

    Checkpoint.save = told
    redraft.run(METHOD, Toy(pause=0.02), checkpoint=folder, **arguments())


if __name__ == "__main__":
    main(sys.argv[1])
