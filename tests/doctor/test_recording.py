"""What a Recorder takes for a layer, found by faults that outlived other tests (`make mutants`)."""

import pytest
import torch
from initialize_networks import batch
from torch import nn

from course_utils.doctor import diagnose
from course_utils.doctor.recording import Recorder


class Product(nn.Module):
    """A layer, and a product of what it returns and a parameter of this shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(8, 16)
        nn.init.orthogonal_(self.first.weight, generator=generator)
        nn.init.zeros_(self.first.bias)
        self.p = nn.Parameter(torch.randn(*shape, generator=generator) / 4)

    def forward(self, x):
        return self.first(x) @ self.p


@pytest.mark.parametrize(
    ("shape", "layers"), [((16, 3), ["first", "p"]), ((16, 1), ["first", "p"]), ((16,), ["first"])]
)
def test_a_product_with_a_matrix_is_a_layer_and_with_a_vector_it_is_none(shape, layers):
    model, x = Product(*shape), batch(32, 8)
    recorder = Recorder(model)
    recorder.run(x)
    assert [call.layer for call in recorder.calls if call.role == "layer"] == layers
    assert diagnose(model, x).table["layer"].tolist() == layers
