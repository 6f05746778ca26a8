# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings for the documentation. ``scripts/website.py`` puts the pages where it reads them: ``make docs``."""

from __future__ import annotations

import json
import os

project = "asap2"
author = "asap2 maintainers"
project_copyright = "asap2 maintainers, Apache-2.0"
version = release = os.environ.get("ASAP2_VERSION", "")
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["extra"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
suppress_warnings = ["myst.header"]
highlight_language = "text"
man_pages = [tuple(one) for one in json.loads(os.environ.get("ASAP2_MAN_PAGES", "[]"))]
man_make_section_directory = True

builder = os.environ.get("ASAP2_BUILDER")
if builder == "html":
    extensions.append("sphinx_copybutton")
    html_theme = "furo"
    html_extra_path = ["extra"]
html_title = "asap2"
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
