"""Freezes, as clocks of a zone show them: once, every week, and where clocks are changed."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_decisionos.errors import PolicyError
from pytest_decisionos.release.freeze import DAYS, FreezeFile, load_freeze


def freeze(zone="Asia/Seoul", **more):
    return FreezeFile.model_validate({"zone": zone, **more})


def span(start, end):
    return {"spans": [{"from": start, "to": end, "reason": "연말"}]}


def weekly(start, end):
    return {"weekly": [{"from": start, "to": end, "reason": "주말"}]}


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("made", "when", "frozen"),
    [
        (freeze(), "2026-01-15T12:00", False),
        (freeze(**span("2026-01-15T21:00", "2026-01-15T22:00")), "2026-01-15T11:59:59", False),
        (freeze(**span("2026-01-15T21:00", "2026-01-15T22:00")), "2026-01-15T12:00", True),
        (freeze(**span("2026-01-15T21:00", "2026-01-15T22:00")), "2026-01-15T12:59:59", True),
        (freeze(**span("2026-01-15T21:00", "2026-01-15T22:00")), "2026-01-15T13:00", False),
        # 2026-01-15 is a Thursday; in Seoul it is Friday from 15:00 UTC on.
        (freeze(**weekly("Fri 00:00", "Fri 01:00")), "2026-01-15T14:59:59", False),
        (freeze(**weekly("Fri 00:00", "Fri 01:00")), "2026-01-15T15:00", True),
        (freeze(**weekly("Fri 18:00", "Mon 09:00")), "2026-01-18T23:59", True),
        (freeze(**weekly("Fri 18:00", "Mon 09:00")), "2026-01-19T00:00", False),
        (freeze(**weekly("Sun 23:00", "Mon 01:00")), "2026-01-18T15:30", True),
        (freeze(**weekly("Mon 01:00", "Sun 23:00")), "2026-01-18T15:30", False),
        # New York's hour from 01:00 came twice on 2026-11-01, and 02:30 on 2026-03-08 never.
        (
            freeze("America/New_York", **span("2026-11-01T01:00", "2026-11-01T01:30")),
            "2026-11-01T05:00",
            True,
        ),
        (
            freeze("America/New_York", **span("2026-11-01T01:00", "2026-11-01T01:30")),
            "2026-11-01T06:29",
            True,
        ),
        (
            freeze("America/New_York", **span("2026-11-01T01:00", "2026-11-01T01:30")),
            "2026-11-01T06:30",
            False,
        ),
        (
            freeze("America/New_York", **span("2026-03-08T02:30", "2026-03-08T04:00")),
            "2026-03-08T06:30",
            True,
        ),
        (freeze("America/New_York", **weekly("Sun 01:00", "Sun 01:30")), "2026-11-01T06:10", True),
        # Between both times 01:30 it has not ended; and an hour that never came is one before.
        (freeze("America/New_York", **weekly("Fri 18:00", "Sun 01:30")), "2026-11-01T05:40", True),
        (freeze("America/New_York", **weekly("Fri 18:00", "Sun 01:30")), "2026-11-01T06:30", False),
        (freeze("America/New_York", **weekly("Sun 02:15", "Sun 02:45")), "2026-03-08T07:10", True),
    ],
)
def test_when_it_is_frozen(made, when, frozen):
    reason = made.reason(utc(when))
    assert (reason is not None) == frozen
    if frozen:
        assert ("연말" in reason) != ("주말" in reason)


@given(
    start=st.tuples(st.sampled_from(DAYS), st.integers(0, 23), st.integers(0, 59)),
    minutes=st.integers(1, 7 * 24 * 60 - 1),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - timezones gives it
)
def test_a_week_has_one_freeze_of_its_length(start, minutes, now):
    first = DAYS.index(start[0]) * 1440 + start[1] * 60 + start[2]
    last = (first + minutes) % (7 * 1440)
    day, rest = divmod(last, 1440)
    made = freeze("UTC", **weekly(f"{start[0]} {start[1]:02}:{start[2]:02}", f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}"))  # fmt: skip
    at = now.weekday() * 1440 + now.hour * 60 + now.minute
    assert (made.reason(now) is not None) == ((at - first) % (7 * 1440) < minutes)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - a wall clock
    st.integers(1, 10_000),
    st.sampled_from(["Asia/Seoul", "America/New_York", "Europe/Lisbon", "Australia/Lord_Howe"]),
)
def test_a_span_is_never_shorter_than_on_its_clock(start, minutes, zone):
    end = start + timedelta(minutes=minutes)
    made = freeze(
        zone, **span(start.isoformat(timespec="seconds"), end.isoformat(timespec="seconds"))
    )
    first = start.replace(microsecond=0, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    assert made.reason(first) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing in it"),
        ("zone: Mars/Olympus", "no IANA time zone"),
        ("zone: ../../etc/passwd", "no IANA time zone"),
        ("zone: Asia", "no IANA time zone"),
        ("zone: ''", "zone"),
        ("spans: []", "zone"),
        ("zone: UTC\nspan: []", "span"),
        ("zone: UTC\nspans: [{from: 2026-01-02T00:00, to: 2026-01-01T00:00, reason: x}]", "before"),
        ("zone: UTC\nspans: [{from: 2026-13-02T00:00, to: 2027-01-01T00:00, reason: x}]", "month"),
        ("zone: UTC\nspans: [{from: 2026-01-02T00:00Z, to: 2027-01-01T00:00, reason: x}]", "from"),
        ("zone: UTC\nspans: [{from: 2026-01-02T00:00, to: 2027-01-01T00:00}]", "reason"),
        ("zone: UTC\nweekly: [{from: Fri 24:00, to: Mon 09:00, reason: x}]", "from"),
        ("zone: UTC\nweekly: [{from: 금 18:00, to: Mon 09:00, reason: x}]", "from"),
        ("zone: UTC\nweekly: [{from: Fri 18:00, to: Fri 18:00, reason: x}]", "same time"),
        ("zone: UTC\nzone: UTC", "duplicate"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text, said):
    path = tmp_path / "freeze.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=said):
        load_freeze(path)


def test_a_file_that_is_lost(tmp_path):
    with pytest.raises(PolicyError, match="dosctl init writes one"):
        load_freeze(tmp_path / "freeze.yaml")


def test_the_shipped_file():
    from pathlib import Path

    made = load_freeze(Path(__file__).parents[2] / "configs/freeze.yaml")
    assert made.reason(utc("2026-12-25T00:00")) is None


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Seoul", "UTC"])
def test_until_further_notice(zone):
    for_ever = freeze(zone, **span("0001-01-01T00:00", "9999-12-31T23:59:59"))
    assert for_ever.reason(utc("2026-01-15T12:00"))
    assert (
        freeze(zone, **span("2026-01-16T00:00", "9999-12-31T23:59")).reason(utc("2026-01-14T12:00"))
        is None
    )


@pytest.mark.parametrize(
    "zone", ["localtime", "posixrules", "posix/Asia/Seoul", "right/UTC", "Factory"]
)
def test_a_zone_is_the_same_on_every_host(zone):
    with pytest.raises(ValueError, match="no IANA time zone"):
        freeze(zone)
