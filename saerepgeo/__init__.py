"""How sparse autoencoders reorganise the geometry of a language model's residual stream."""

__version__ = "0.1.0"
