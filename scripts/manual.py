# SPDX-License-Identifier: Apache-2.0
"""Write the manual pages and the shells' completion: ``python scripts/manual.py DIRECTORY``.

The pages have the sources of the site: the commands' help, and documents of docs. Sphinx makes man(7) of them. Needs
what ``asap2 host`` needs, Sphinx and MyST.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import reference
from asap2.cli.main import VERBS
from asap2.cli.verbs import COMPLETION

TOP: Final = Path(__file__).resolve().parents[1]
VERSION: Final = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
DOCUMENTS: Final = {
    "operator": ("asap2-operator", 7, "set up, verify and explain Open vSwitch hardware offload"),
    "reasons": ("asap2-reasons", 7, "why a flow or a connection is not in hardware"),
    "lab": ("asap2-topology", 5, "describe nodes, software NICs, cables and guests"),
    "openstack-config": ("asap2-openstack-config", 7, "settings of OpenStack for switchdev NICs"),
}
"""The documents of docs that are pages: name, section, and what the page is about."""
_LINK: Final = re.compile(r"\[([^\]\n]+)\]\([^)\n]*\)")
"""A link, of which a manual page has the words."""
SHELLS: Final = {
    "bash": "bash-completion/completions/asap2",
    "zsh": "zsh/vendor-completions/_asap2",
    "fish": "fish/vendor_completions.d/asap2.fish",
}
"""Where shells look for completion, below share."""
SCRIPTS: Final = {
    "bash": 'eval "$({ask})"\n',
    "zsh": '#compdef asap2\neval "$({ask})"\n_asap2_completion "$@"\n',
    "fish": "env {ask} | source\n",
}


def main() -> None:
    """Write all below the directory that the command line names."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        listed = prepare(source)
        shutil.copy(TOP / "docs/conf.py", source)
        asked = {"ASAP2_VERSION": VERSION, "ASAP2_BUILDER": "man", "ASAP2_MAN_PAGES": json.dumps(listed)}
        words = [sys.executable, "-m", "sphinx", "-b", "man", "-q", "-W", "--keep-going", "-d", f"{place}/trees"]
        if status := subprocess.run(
            [*words, source, target / "man"], env={**os.environ, **asked}, check=False
        ).returncode:
            sys.exit(status)
    for page in (target / "man").glob("man?/*"):
        # Sphinx of Debian 12 sets code in a font that groff and mandoc no longer have.
        page.write_text(re.sub(r"^\.ft [CP]\n", "", page.read_text(), flags=re.MULTILINE))
    for shell, where in SHELLS.items():
        path = target / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(completion(shell))


def prepare(source: Path) -> list[tuple[str, str, str, str, int]]:
    """Put the pages' Markdown into *source*. Of each page: document, name, what it is about, authors, section."""
    source.mkdir(parents=True)
    listed = []
    for name, (about, text) in reference.pages().items():
        (source / f"{name}.md").write_text(_LINK.sub(r"\1", text) + "\n" + see_also(name))
        listed.append((name, name, about, "", reference.section_of(name)))
    for document, (name, section, about) in DOCUMENTS.items():
        text = (TOP / f"docs/{document}.md").read_text()
        (source / f"{document}.md").write_text(_LINK.sub(r"\1", text))
        listed.append((document, name, about, "", section))
    names = "\n".join(document for document, *_ in listed)
    (source / "index.md").write_text(f"# asap2\n\n```{{toctree}}\n{names}\n```\n")
    return listed


def see_also(page: str) -> str:
    """References to the other pages."""
    names = [("asap2", 1), *((f"asap2-{verb}", reference.section_of(f"asap2-{verb}")) for verb in VERBS)]
    names += [(name, section) for name, section, _ in DOCUMENTS.values()]
    names += [(name, 8) for name in ("ovs-vswitchd", "devlink", "tc")]
    return "## See also\n\n" + ", ".join(f"**{name}**({section})" for name, section in names if name != page) + "\n"


def completion(shell: str) -> str:
    """The file that has *shell* complete asap2's command line: it asks asap2 for the script, as that is of one version
    with what answers it."""
    return SCRIPTS[shell].format(ask=f"{COMPLETION}={shell}_source asap2")


if __name__ == "__main__":
    main()
