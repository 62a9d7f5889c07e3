"""Policy files → rules: schema, compiler, lint, and the rules in words."""
