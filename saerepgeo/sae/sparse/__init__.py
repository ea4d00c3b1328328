"""Active (point, latent) pairs: selected, multiplied and differentiated without dense latents."""
