"""Measuring a result against exact truth."""
