"""The model layer; see README.md beside this file."""
