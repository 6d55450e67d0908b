"""How Sphinx builds the site: `make docs`."""

import os
from importlib.metadata import version as version_of

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project = "ppvae"
author = "the ppvae authors"
release = version_of("ppvae")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "report", "jupyter_execute"]

# The tutorials are stored with what they showed, which `make test-slow` compares with what they show now;
# NB_EXECUTION_MODE=force runs them in the build too.
nb_execution_mode = os.environ.get("NB_EXECUTION_MODE", "off")
nb_execution_timeout = 1800
nb_execution_raise_on_error = True

myst_enable_extensions = ["colon_fence", "dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

autosummary_generate = True
autodoc_typehints = "none"  # the signature shows them; the docstrings say what they mean
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Links to the documentation of others are resolved where there is a network; without one the names stay as they are.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
    "pyro": ("https://docs.pyro.ai/en/stable", None),
    "arviz": ("https://python.arviz.org/en/stable", None),
    "xarray": ("https://docs.xarray.dev/en/stable", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
}
if os.environ.get("PPVAE_OFFLINE_DOCS"):
    intersphinx_mapping = {}

html_theme = "furo"
html_title = "ppvae"
html_static_path = ["_static"]
html_css_files = ["ppvae.css"]
html_js_files = ["accessible.js"]
html_extra_path = ["report"]
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = False
html_math_renderer = "mathml"
templates_path = ["_templates"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    """Formulas are written as MathML, which browsers show by themselves: the pages need no script and no network."""

    def inline(writer, node):
        writer.body.append(convert(node.astext()))
        raise SkipNode

    def block(writer, node):
        writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
        raise SkipNode

    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
