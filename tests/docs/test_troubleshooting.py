"""Every message that docs/troubleshooting.md quotes is one that moembed says."""

import pytest

from support.messages import is_message
from support.pages import page

QUOTED = [block.code for block in page("docs/troubleshooting.md").blocks("text")]


@pytest.mark.parametrize("message", QUOTED, ids=lambda message: message[:60])
def test_a_quoted_message_is_in_the_sources(message):
    assert is_message(message)


def test_other_texts_are_no_messages():
    assert len(QUOTED) > 20
    assert not is_message("… was trained without a prompt")
    assert not is_message("the moon is full")
