"""Latents divided among devices."""
