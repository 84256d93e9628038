"""A run that is sent a signal in its fourth step."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import pytest

from ssl_lens.engine.signals import InterruptedRun

Stopped: TypeAlias = Callable[..., AbstractContextManager["pytest.ExceptionInfo[InterruptedRun]"]]
