"""The execution layer; see README.md beside this file."""
