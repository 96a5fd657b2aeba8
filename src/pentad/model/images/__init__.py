"""Images for models that take them: their files, their decoding in a process apart, and their embeddings."""
