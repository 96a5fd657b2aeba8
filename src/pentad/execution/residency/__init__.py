"""Which weights are where: in memory of the process, or in a file that the system pages in."""
