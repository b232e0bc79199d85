"""Test a worker without a broker, and long deadlines without waiting for them."""

from pbus.testing.clock import FakeClock
from pbus.testing.harness import WorkerHarness
from pbus.testing.stand_in import StandIn

__all__ = ["FakeClock", "StandIn", "WorkerHarness"]
