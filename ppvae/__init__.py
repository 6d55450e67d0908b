"""ppvae: deep latent-variable models as Pyro model/guide pairs, and measures of how good they are.

A model is a *pair* of Pyro programs: ``model(x)`` defines how data are generated, p(z) p(x|z); ``guide(x)``
approximates the posterior of the latent variables, q(z|x). Everything else in this package is a function of a pair.
"""

from pathlib import Path as _Path

# In a checkout the rooms models/, inference/ and experiments/ stand beside this folder, not inside it; the installed
# package holds them as subfolders. Looking in both places lets `import ppvae.models` mean the same in either.
_here = _Path(__file__).resolve().parent
if (_here.parent / "pyproject.toml").exists():
    __path__ = [str(_here), str(_here.parent)]

__version__ = "0.1.0"
