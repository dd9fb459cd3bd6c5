"""Verifiers of pictures that need no network, under names of their own."""

import time

NAMES = {"bright": "looks:Bright", "red": "looks:Red", "failing": "looks:Failing", "fussy": "looks:fussy"}


class Bright:
    """How bright a picture is."""

    blind = True

    def __init__(self, factor: float = 1.0, pause: float = 0.0) -> None:
        self.factor, self.pause = factor, pause

    def __call__(self, samples, problems):
        time.sleep(self.pause)
        return self.factor * samples.double().flatten(1).mean(1)


class Red:
    """How red a picture is."""

    def __call__(self, samples, problems):
        assert len(problems.facts["prompt"]) == len(samples)
        return samples[:, 0].double().flatten(1).mean(1) - samples.double().flatten(1).mean(1)


class Failing(Bright):
    """Fails once it has seen so many pictures."""

    def __init__(self, after: int = 3) -> None:
        super().__init__()
        self.left = after

    def __call__(self, samples, problems):
        self.left -= len(samples)
        if self.left < 0:
            raise ConnectionError("the endpoint is down")
        return super().__call__(samples, problems)


def fussy(**options):
    """A verifier that checks its settings by itself."""
    if "size" not in options:
        raise TypeError("size is missing")
    return Bright()
