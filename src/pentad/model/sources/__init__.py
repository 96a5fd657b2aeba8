"""Where models come from: packages on a Python index, the hub, or a path on this machine."""
