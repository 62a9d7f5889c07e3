"""Every rule of every SLO, asked of each judge: the quorum counts these votes."""


def test_rule(rule, judge):
    judge.vote(rule)
