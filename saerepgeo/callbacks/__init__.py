"""What happens around training and testing: artifacts, figures, export, interruption."""
