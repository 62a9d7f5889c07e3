"""A judge as a server: signed questions in, signed verdicts out."""
