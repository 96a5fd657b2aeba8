"""Coordinators: who of several agents does what next."""
