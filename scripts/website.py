# SPDX-License-Identifier: Apache-2.0
"""Build the documentation site in build/docs/html: ``make docs``.

Pages are those of docs, with the README files of other directories and what is made from the program itself: the
commands from their help, the gallery from the topologies. A warning of the generator is an error, and so is a link
to a page, file or heading of the site that does not exist. Links to other sites are not followed.
"""

from __future__ import annotations

import html.parser
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Final

import reference
from asap2.version import version
from gallery_pages import gallery

TOP: Final = Path(__file__).resolve().parents[1]
BUILD: Final = TOP / "build/docs"
OTHERS: Final = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "ansible/README.md", "bench/README.md")
"""Documents outside docs that its pages lead to."""


def main() -> int:
    """Build the site; the exit status."""
    source, output = BUILD / "source", BUILD / "html"
    prepare(source)
    done = sphinx(source, output)
    broken = [] if done else broken_links(output)
    for line in broken:
        print(line, file=sys.stderr)
    if not done and not broken:
        print(f"the site: {output.relative_to(TOP)}/index.html")
    return done or int(bool(broken))


def prepare(source: Path) -> None:
    """Put into *source* everything that the generator reads."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(TOP / "docs", source)
    for page in source.glob("*.md"):
        page.write_text(page.read_text().replace("](../", "]("))
    for name in OTHERS:
        target = source / name
        target.parent.mkdir(exist_ok=True)
        text = (TOP / name).read_text()
        target.write_text(re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", text))
    for file in (*(TOP / "bench").glob("*.png"), *(TOP / "bench").glob("*.json")):
        shutil.copy(file, source / "bench")
    shutil.copytree(TOP / "docs/schemas", source / "extra/schemas")
    commands = source / "commands"
    commands.mkdir()
    pages = reference.pages()
    for name, (_about, text) in pages.items():
        (commands / f"{name}.md").write_text(text)
    with (source / "commands.md").open("a") as index:
        names = "\n".join(f"commands/{name}" for name in sorted(pages))
        index.write(f"\n```{{toctree}}\n:maxdepth: 2\n\n{names}\n```\n")
    gallery(source)


def sphinx(source: Path, output: Path) -> int:
    """Run Sphinx; its exit status."""
    words = ["-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-d", str(BUILD / "trees")]
    asked = {"ASAP2_VERSION": version(), "ASAP2_BUILDER": "html"}
    return subprocess.run(
        [sys.executable, *words, str(source), str(output)], env={**os.environ, **asked}, check=False
    ).returncode


class _Page(html.parser.HTMLParser):
    """The links of a page, and what links can lead to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.parts: list[str] = []
        """What a browser loads with the page."""
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link or a place."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
                if name == "src" or tag == "link":
                    self.parts.append(value)
            elif name == "id" and value:
                self.places.add(value)


def broken_links(site: Path) -> list[str]:
    """Links within *site* that lead nowhere, and parts of pages that are elsewhere, one line each."""
    pages = {path: _Page(path.read_text()) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.parts and parts.scheme != "data":
                    broken.append(f"{path.relative_to(site)}: needs the network: {link}")
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            if not target.exists() or (parts.fragment and there and parts.fragment not in there.places):
                broken.append(f"{path.relative_to(site)}: a link leads nowhere: {link}")
    return broken


if __name__ == "__main__":
    sys.exit(main())
