"""Attention filters: which cached positions a step attends to."""
