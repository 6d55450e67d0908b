"""The site: every public name stands in the reference, every page is reachable, every command is listed."""

import importlib
import re

import pytest


@pytest.mark.parametrize("room", ["inference", "models", "datasets", "experiments"])
def test_every_public_name_stands_in_the_reference(repository, room):
    page = (repository / "docs" / "reference" / f"{room}.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   (\w[\w.]*)$", page, flags=re.MULTILINE))
    public = {
        name
        for name in importlib.import_module(f"ppvae.{room}").__all__
        if callable(getattr(importlib.import_module(f"ppvae.{room}"), name))
    }
    assert public <= listed
    assert {name for name in listed if "." not in name} <= public


def test_every_page_is_reachable_from_the_first(repository):
    docs = repository / "docs"
    index = (docs / "index.md").read_text(encoding="utf-8")
    listed = {
        line.strip()
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.DOTALL)
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    }
    pages = {
        str(page.relative_to(docs).with_suffix(""))
        for pattern in (
            "*.md",
            "how_to/*.md",
            "explanation/*.md",
            "gallery/*.md",
            "reference/*.md",
            "tutorials/*.ipynb",
        )
        for page in docs.glob(pattern)
    }
    assert pages - {"index"} == listed


def test_every_command_is_listed(repository):
    from ppvae.cli.dispatch import COMMANDS

    page = (repository / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"`ppvae {name}" in page
