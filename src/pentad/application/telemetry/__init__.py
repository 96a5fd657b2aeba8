"""Traces that leave the process: spans of runs and requests, sent to a collector or written to a file."""
