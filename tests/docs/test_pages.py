# SPDX-License-Identifier: Apache-2.0
"""The code of every page does what the page says: ``make test-docs``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, TOP, blocks
from tests.docs.session import Session

RUN = {page: [block for block in blocks(page) if block.is_run] for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if RUN[page]], ids=lambda page: str(page.relative_to(TOP)))
def test_the_blocks_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    session = Session(tmp_path, Path(f"/run/t-docs-{os.getpid()}"))
    try:
        for block in RUN[page]:
            session.run(block)
    finally:
        session.close()
