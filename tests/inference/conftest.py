"""What several tests of this folder share."""

import pytest

from ppvae.inference.pair import block_code


@pytest.fixture
def uncompiled(monkeypatch):
    """The recorded graph itself in the place of inductor's code; counts how many there are."""
    made = []

    def graph(module, inputs, **options):
        made.append(module)
        return module

    monkeypatch.setattr(block_code, "inductor", graph)
    return made
