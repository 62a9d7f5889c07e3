"""A desk to release from."""

import pytest
from cutover import Desk


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


@pytest.fixture
def live(tmp_path):
    return Desk(tmp_path, live=True)
