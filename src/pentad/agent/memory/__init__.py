"""What an agent keeps: a window of recent turns, and a store that outlives the run."""
