"""Doubles and small worlds for tests of Pentad and of programs that use it."""
