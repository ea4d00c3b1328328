"""Case 2: local and global structure, before and after the SAE."""
