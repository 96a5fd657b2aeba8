"""The resource layer; see README.md beside this file."""
