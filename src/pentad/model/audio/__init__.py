"""Sound to text: a recognizer in a process of its own, and what it tells."""
