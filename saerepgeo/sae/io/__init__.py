"""SAEs on disk and in registries: read, made, written."""
