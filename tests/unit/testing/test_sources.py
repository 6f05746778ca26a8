# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from asap2.errors import UsageError
from asap2.testing.sources import read

TEXT = '[[node]]\nname = "a"\n[[node.nic]]\n'


def test_a_topology_is_a_name_a_number_a_file_its_text_or_itself(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(TEXT)
    assert [node.name for node in read("two-nodes").nodes] == ["hv1", "hv2"]
    assert [node.name for node in read(3).nodes] == ["hv1", "hv2", "hv3"]
    assert read(file) == read(str(file)) == read(TEXT) == read(read(TEXT))


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"there is no topology 'nonesuch'; .*two-nodes"):
        read("nonesuch")
