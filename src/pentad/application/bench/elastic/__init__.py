"""Policies on a mixed workload, live or simulated: runs that are right, in time and within budget."""
