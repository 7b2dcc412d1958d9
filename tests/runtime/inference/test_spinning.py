"""K21: threads of a session spin for a limited time, which is shorter where the CPUs are shared."""

import pytest

from moembed import Embedder
from moembed.inference import session


@pytest.fixture(autouse=True)
def _as_outside_of_tests(spin_microseconds, monkeypatch):
    monkeypatch.setattr(session, "_SPIN_MICROSECONDS", spin_microseconds)


@pytest.mark.parametrize(("spin", "microseconds"), [(True, "200"), (False, "50")])
def test_spinning_is_limited(int8, spin, microseconds):
    options = Embedder(int8, threads=2, spin=spin).session._session.get().get_session_options()
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == microseconds


def test_sessions_of_calibration_and_checks_spin_as_shortly():
    assert session.session_options().get_session_config_entry("session.intra_op.spin_duration_us") == "200"
