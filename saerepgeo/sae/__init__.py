"""Sparse autoencoders: SAELens' parameters with stateless input and sparse gradients."""
