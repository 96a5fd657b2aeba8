"""Policies that learn where requests go: what they see, how they are trained, and their files."""
