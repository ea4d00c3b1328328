"""Case 1: the ranks that latents visit as noise is added."""
