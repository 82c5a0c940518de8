"""Settings shared by all tests."""

import torch

# Layers as small as those of the tests lose up to a factor of 20 to a second thread when both cores are busy.
torch.set_num_threads(1)
