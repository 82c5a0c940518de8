"""The libraries whose models are judged, imported without a network and beside a torch for CPUs."""

import os
from unittest.mock import patch

# A torchvision for CUDA has no operators beside a torch for CPUs, and cannot describe them to it. timm needs
# only its functions in Python.
no_register = patch("torch.library.register_fake", lambda *_, **__: lambda function: function)

with patch.dict(os.environ), no_register:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported: all weights are random
    import timm
    import transformers

__all__ = ["timm", "transformers"]
