"""Case 3 on latents: clusters are moved, and the reconstruction error is measured."""
