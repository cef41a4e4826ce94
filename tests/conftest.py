"""Settings for every suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machines are shared and slow at times: an example that takes long says nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
