"""Evidence: building it from logs, its digest, and where it is kept."""
