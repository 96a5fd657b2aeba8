"""Native kernels: one call per engine step into a library built for the CPU at hand. No PyTorch."""
