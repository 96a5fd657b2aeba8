"""Evaluation: suites of cases with known answers, and what a model under a strategy makes of them."""
