"""Readers of model files: GGUF and safetensors, by our own bounds-checked code, never pickle."""
