"""One inventory of what all nodes have, kept by a central controller through leases and heartbeats."""
