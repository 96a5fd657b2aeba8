"""Plain PyTorch kernels: the reference runner and encoder. The only package that imports torch."""
