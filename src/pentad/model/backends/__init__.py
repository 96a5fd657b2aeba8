"""Backends: our engine, llama.cpp and remote endpoints behind one protocol."""
