"""Data go where the parameters are, whoever holds these; "meta" stands for an accelerator here."""

import pyro
import torch

from ppvae.inference.pair import where_parameters_are


def model(x):
    pass


def guide(x, label=None):
    scale = pyro.param("scale", torch.ones(2, device="meta"))
    if x.device != scale.device:
        raise RuntimeError("Expected all tensors to be on the same device")


def no_parameters(x):
    raise RuntimeError("fails")


def test_data_go_where_a_plain_functions_parameters_are(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    x, label = where_parameters_are(model, guide, (torch.zeros(3, 2), torch.zeros(3)))
    assert x.device.type == label.device.type == "meta"
    (x,) = where_parameters_are(model, no_parameters, (torch.zeros(3, 2),))
    assert x.device.type == "cpu"


def test_where_there_is_no_accelerator_no_program_is_run(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    (x,) = where_parameters_are(model, guide, (torch.zeros(3, 2),))
    assert x.device.type == "cpu"


def test_data_go_where_a_module_is():
    module = torch.nn.Linear(2, 1, device="meta")
    (x,) = where_parameters_are(model, lambda x: module(x), (torch.zeros(3, 2),))
    assert x.device.type == "meta"
