"""The wire formats as msgspec Structs: what is read, what is written, and the OpenAPI schemas."""
