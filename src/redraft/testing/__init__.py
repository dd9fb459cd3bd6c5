"""Contract tests for parts of your own: silence, or an AssertionError whose sentence says which promise is not kept.

Call them from your test-suite:

    redraft.testing.check_model(my_model, my_problems)
    redraft.testing.check_sampler(my_sampler, my_model, my_problems)
    redraft.testing.check_method(my_method, my_model, my_problems, my_verifier)
    redraft.testing.check_verifier(my_verifier, my_samples, my_problems)
    redraft.testing.check_task(my_task, my_samples)
"""

from redraft.testing.method import check_method
from redraft.testing.model import check_model
from redraft.testing.sampler import check_sampler
from redraft.testing.task import check_task
from redraft.testing.verifier import check_verifier

__all__ = ["check_method", "check_model", "check_sampler", "check_task", "check_verifier"]
