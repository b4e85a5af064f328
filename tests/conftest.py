"""Properties here are about what comes out, not about how fast: on a busy machine a single
example may take long, and so may drawing it. Neither is a failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
