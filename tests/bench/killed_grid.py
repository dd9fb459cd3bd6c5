"""A grid whose cells take a while, to be killed: `python killed_grid.py MODEL FOLDER` prints a line for each stored."""

import sys
import time
from pathlib import Path

from grids import small

from redraft.bench import engine
from redraft.bench.cell import Measure
from redraft.bench.local import Serial
from redraft.bench.store import Store


class Slow(Serial):
    def map(self, measure, cells):
        for cell in cells:
            time.sleep(0.2)
            yield measure(cell)


class Told:
    def log(self, values):
        print(values["cell"], flush=True)


def main(model, folder):
    made = small(model, media=1)
    store = Store(Path(folder))
    store.open(made, "full")
    engine.run(made, store, Slow(), Measure().threads, Told(), progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
