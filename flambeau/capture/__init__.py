"""Compiled functions: captured behind guards and replayed without running their Python code."""
