"""MkDocs hook: make README.md the site's index page, and add the other files of the root that pages link to."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CITATION.cff": "CITATION.cff"}
"""File in the root -> its path on the site."""


def on_files(files, config):
    """Add the files of PAGES. Their links to docs/ become relative to docs/."""
    for name, path in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](").replace("](README.md", "](index.md")
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Let links from a page in docs/ to a file in the root lead to its page on the site."""
    up = "../" * page.file.src_uri.count("/")
    names = "|".join(map(re.escape, PAGES))
    return re.sub(rf"\]\({re.escape(up)}\.\./({names})", lambda match: f"]({up}{PAGES[match[1]]}", markdown)
