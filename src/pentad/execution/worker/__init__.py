"""Worker: an engine in a process of its own, driven from another one through a transport."""
