"""The commands that the pages show are there, and their links lead somewhere."""

from __future__ import annotations

import re

import pytest

from tests.cli.pages import ROOT, Page, unknown

PAGES = [Page(path.stem) for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_there(page: Page) -> None:
    wrong = {" ".join(words): missing for words in page.commands() if (missing := unknown(words))}

    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_page_and_to_a_heading_of_it(page: Page) -> None:
    links = re.findall(r"\]\(([\w-]*)(?:\.md)?(?:#([\w-]+))?\)", page.text)
    wrong = [link for link in links if not _leads(page, *link)]

    assert not wrong


def _leads(page: Page, name: str, heading: str) -> bool:
    other = Page(name or page.name)
    return other in PAGES and (not heading or heading in _headings(other))


def _headings(page: Page) -> set[str]:
    found = re.findall(r"^#+ (.+)$", page.text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", words).strip().lower().replace(" ", "-") for words in found}
