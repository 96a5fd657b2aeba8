"""Traces as OpenTelemetry has them: where work stands in a trace, its spans, and how they are written."""
