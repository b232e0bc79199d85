"""OpenTelemetry: spans and metrics of messages, where the extra is installed and configured.

Nothing is loaded or called without: a traced bus has other methods from the start.
"""

from pbus.bus.otel.otel_setup import trace_if_configured as trace_if_configured
