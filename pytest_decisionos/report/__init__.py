"""One decision model → what people read: terminal, JUnit, pull-request comment, GitHub Actions."""
