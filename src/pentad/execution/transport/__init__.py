"""Transport: typed messages and byte buffers between processes, of one machine or of several."""
