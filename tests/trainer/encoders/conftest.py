import pytest

from tests.trainer.encoders.six import six
from trainer.data import Interactions


@pytest.fixture
def data() -> Interactions:
    return six()
