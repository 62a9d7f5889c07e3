"""Moving a release: the stage, who may change it, and what was changed."""
