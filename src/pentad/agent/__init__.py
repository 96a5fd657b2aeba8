"""The agent layer; see README.md beside this file."""
