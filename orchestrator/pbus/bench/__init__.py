"""Measures the bus with processes of its own, beside the broker's plain client on the same work."""

from pbus.bench.peers.catalog import PEER_MEASUREMENTS, PEERS
from pbus.bench.results import Check, Environment, Plan, Report, Row
from pbus.bench.suite import MEASUREMENTS, measure

__all__ = [
    "MEASUREMENTS",
    "PEERS",
    "PEER_MEASUREMENTS",
    "Check",
    "Environment",
    "Plan",
    "Report",
    "Row",
    "measure",
]
