"""Models that tests build from torch's own generator are the same in each run."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_models():
    torch.default_generator.manual_seed(0)
