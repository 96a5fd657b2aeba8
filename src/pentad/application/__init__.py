"""The application layer; see README.md beside this file."""
