"""What lets programs written for PyTorch run unchanged: the name `torch` and old spellings."""
