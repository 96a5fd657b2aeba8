"""Quantized safetensors: each method's tensors of codes and scales read as ordinary weights."""
