"""Run a notebook's code cells as Jupyter does, in one plain Python process, and store what they show.

    python tests/notebook.py docs/tutorials/NAME.ipynb ...

writes the outputs into the notebooks; ``tests/test_tutorials.py`` runs the same on a copy and compares. It knows what
these notebooks use: printed text, the value of a cell's last expression, and the figures that are open when the cell
ends. It needs no kernel, so that the tests need none; Jupyter opens the notebooks all the same.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell):
    """What a code cell shows in words: printed text, then the value of its last expression."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", []) for output in cell["outputs"]]
    return "".join("".join(text) for text in texts)


def figures_of(cell):
    """The PNG files that a code cell shows."""
    pngs = [output.get("data", {}).get("image/png") for output in cell["outputs"]]
    return [base64.b64decode(png) for png in pngs if png]


def run(notebook):
    """Run every code cell in a fresh namespace; their outputs replace those in ``notebook``."""
    scope = {"__name__": "__main__"}
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell["execution_count"] = count
        cell["outputs"] = _run_cell(source(cell), scope, count)


def _run_cell(text, scope, count):
    tree, value = ast.parse(text), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"<cell {count}>", "exec"), scope)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), scope)
    outputs = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
    if value is not None and not text.rstrip().endswith(";"):
        outputs.append(
            {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": _shown(value)}
        )
    return outputs + [
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": png, "text/plain": ["<Figure>"]}}
        for png in _figures()
    ]


def _shown(value):
    html = getattr(value, "_repr_html_", lambda: None)()
    return {"text/plain": _lines(repr(value))} | ({"text/html": _lines(html)} if html else {})


def _figures():
    """The open figures, as Jupyter shows them at the end of a cell; they are closed."""
    from matplotlib import pyplot as plt

    for number in plt.get_fignums():
        file = io.BytesIO()
        plt.figure(number).savefig(file, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
        yield base64.b64encode(file.getvalue()).decode()
    plt.close("all")


def _lines(text):
    return text.splitlines(keepends=True)


def main(paths):
    import matplotlib
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(1)  # sums of several threads round in another order
    for path in map(Path, paths):
        notebook = read(path)
        run(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
