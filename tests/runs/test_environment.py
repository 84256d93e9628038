"""What a run folder says of where the run was made."""

import pytest

from ssl_lens.runs import environment


def test_a_package_of_an_extra_that_is_not_installed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "REPORTED_PACKAGES", ("torch", "no-such-package"))
    packages = environment.environment(1)["packages"]
    assert packages["torch"]
    assert packages["no-such-package"] is None
