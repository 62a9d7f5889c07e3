"""A cutover to watch: two releases of a service, nginx before them, and users."""
