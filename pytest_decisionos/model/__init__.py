"""What crosses the walls between rooms: evidence, policy, outcome, verdict, decision, target."""
