"""docs/notes.md points to what exists: every link resolves, and the name it is on stands in that file."""

import ast
import re

import pytest

LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./([\w/.]+)\)")


def names(file):
    """Every function, method and class of a Python file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.fixture
def notes(repository):
    return (repository / "docs" / "notes.md").read_text(encoding="utf-8")


def test_every_link_resolves_to_the_name_it_is_on(notes, repository):
    links = LINK.findall(notes)
    assert len(links) > 50
    assert len(links) == notes.count("](../")  # no link of another form goes unread
    for name, path in links:
        file = repository / path
        assert file.is_file(), path
        assert name in names(file) | {file.stem}, f"{name} is not in {path}"


def test_every_formula_has_code_and_a_test(notes):
    rows = [line for line in notes.splitlines() if line.startswith("| ") and not line.startswith("| in the notes")]
    assert len(rows) == 19
    for row in rows:
        *_, code, _, held = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1])
        assert "](../" in code, row
        assert "](../tests/" in held, row


def test_every_picture_exists(notes, repository):
    pictures = re.findall(r"!\[[^\]]+\]\(([\w/.]+)\)", notes)
    assert len(pictures) > 5
    assert not [path for path in pictures if not (repository / "docs" / path).is_file()]
