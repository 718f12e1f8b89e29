"""Errors that a user is shown."""

import pytest


def assert_refused(error, message, function, *args, **kwargs):
    """Assert that a call raises an error of one line that matches ``message``."""
    with pytest.raises(error, match=message) as caught:
        function(*args, **kwargs)
    assert len(str(caught.value).splitlines()) == 1
