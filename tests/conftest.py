"""One thread, so that the tests take as long on any machine and their sums round the same way."""

import torch

torch.set_num_threads(1)
