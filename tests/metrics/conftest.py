"""Fixtures of the metric tests."""

from tests.metrics.harness import process_pair

__all__ = ["process_pair"]
