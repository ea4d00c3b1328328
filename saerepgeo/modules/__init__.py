"""LightningModules: the three cases."""
