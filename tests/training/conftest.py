"""The RGB-D folder of the data tests."""

from tests.data.conftest import rgbd  # noqa: F401 - a fixture
