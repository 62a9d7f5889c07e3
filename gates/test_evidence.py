"""The evidence must be whole, unchanged, fresh and about this target; so must every check pass."""


def test_evidence(check):
    check.pass_or_fail()
