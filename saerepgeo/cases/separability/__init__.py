"""Case 3 by training: an SAE fine-tuned under a regularizer on separability."""
