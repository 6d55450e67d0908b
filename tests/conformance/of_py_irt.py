"""Item response models of py-irt."""

import torch
from py_irt.models import FourParamLog, Multidim2PL, OneParamLog, ThreeParamLog, TwoParamLog

SUBJECTS, ITEMS = 6, 5


class OneParameter:
    """1PL, vague priors"""

    PACKAGE, SETTINGS = "py-irt", {"epochs": 200, "learning_rate": 0.05}
    make = staticmethod(lambda **sizes: OneParamLog(priors="vague", **sizes))

    def __init__(self):
        self.irt = self.make(num_items=ITEMS, num_subjects=SUBJECTS)
        self._model, self._guide = self.irt.get_model(), self.irt.get_guide()

    def data(self):
        """The answers, and by whom and to what they were given."""
        subjects = torch.arange(SUBJECTS).repeat_interleave(ITEMS)
        items = torch.arange(ITEMS).repeat(SUBJECTS)
        return torch.bernoulli(torch.sigmoid(0.5 * (subjects - items).float())), subjects, items

    def model(self, answers, subjects, items):
        return self._model(subjects, items, answers)

    def guide(self, answers, subjects, items):
        return self._guide(subjects, items, answers)


class TwoParameters(OneParameter):
    """2PL, vague priors"""

    make = staticmethod(lambda **sizes: TwoParamLog(priors="vague", **sizes))


class TwoParametersHierarchical(OneParameter):
    """2PL, hierarchical priors"""

    make = staticmethod(lambda **sizes: TwoParamLog(priors="hierarchical", **sizes))


class ThreeParameters(OneParameter):
    """3PL"""

    make = staticmethod(lambda **sizes: ThreeParamLog(priors="hierarchical", **sizes))


class FourParameters(OneParameter):
    """4PL"""

    make = staticmethod(lambda **sizes: FourParamLog(device="cpu", **sizes))


class ManyDimensions(OneParameter):
    """Multidimensional 2PL"""

    make = staticmethod(lambda **sizes: Multidim2PL(**sizes))
