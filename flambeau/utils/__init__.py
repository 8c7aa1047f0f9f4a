"""Data loading, and what programs around training need."""
