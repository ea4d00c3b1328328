"""Clouds of points, by coordinates or distances, and their nearest neighbors."""
