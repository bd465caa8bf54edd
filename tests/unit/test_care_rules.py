"""The rules of looking after members: birthdays that there are, tags that are few enough, tasks that end."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import Refused
from svc_members.rules import follow_up, tag
from svc_members.rules.follow_up import TaskState
from svc_members.rules.profile import LANGUAGE_TAG, Birthday
from svc_members.rules.tag import TAGS_MAX

# ---- birthdays --------------------------------------------------------------------------------------


@given(st.integers(1880, 9999), st.integers(1, 12), st.integers(1, 31))
def test_a_birthday_with_a_year_exists_where_the_calendar_has_the_day(
    year: int, month: int, day: int
) -> None:
    assert Birthday(month, day, year).exists() == (day <= calendar.monthrange(year, month)[1])


@pytest.mark.parametrize(
    ("month", "day", "exists"),
    [(2, 29, True), (2, 30, False), (4, 31, False), (12, 31, True), (13, 1, False), (1, 0, False)],
)
def test_without_a_year_29_february_is_a_birthday(month: int, day: int, exists: bool) -> None:
    """And 30 February is none in any."""
    assert Birthday(month, day, None).exists() == exists


def test_29_february_needs_a_leap_year() -> None:
    """2000 was one, 1900 was none."""
    years = {year: Birthday(2, 29, year).exists() for year in (1900, 1987, 1988, 2000)}
    assert years == {1900: False, 1987: False, 1988: True, 2000: True}


@given(st.dates(date(1880, 1, 1)), st.booleans())
def test_a_birthday_is_read_as_it_was_written(day: date, with_year: bool) -> None:
    birthday = Birthday(day.month, day.day, day.year if with_year else None)
    assert Birthday.from_text(birthday.to_text()) == birthday


@pytest.mark.parametrize("text", ["", "1987-11", "11-23", "1987-11-23T", "--1-2", "19871123"])
def test_no_other_text_is_a_birthday(text: str) -> None:
    with pytest.raises(ValueError):
        Birthday.from_text(text)


def test_only_a_birthday_with_a_year_can_be_still_to_come() -> None:
    """Tomorrow without a year is his next one."""
    today = date(2026, 3, 10)
    tomorrow = today + timedelta(days=1)
    assert Birthday(tomorrow.month, tomorrow.day, tomorrow.year).is_after(today)
    assert not Birthday(today.month, today.day, today.year).is_after(today)
    assert not Birthday(tomorrow.month, tomorrow.day, None).is_after(today)
    assert not Birthday(2, 30, 2027).is_after(today), "no day at all"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("zh", True),
        ("zh-CN", True),
        ("zh-Hant-TW", True),
        ("de-1996", True),
        ("z", False),
        ("zh_CN", False),
        ("中文", False),
        ("zh-", False),
    ],
)
def test_a_language_is_named_by_a_tag(text: str, good: bool) -> None:
    assert bool(LANGUAGE_TAG.fullmatch(text)) == good


# ---- tags -------------------------------------------------------------------------------------------

TAGS = st.frozensets(st.text("abc ", min_size=1, max_size=3))


@given(TAGS, TAGS, TAGS)
def test_added_tags_are_his_and_none_is_lost(
    own: frozenset[str], others: frozenset[str], new: frozenset[str]
) -> None:
    """Each set keeps what it had; a tag that another set holds is added all the same."""
    assert tag.added(own, others, new) == own | new


def test_spaces_around_a_tag_are_no_part_of_it_and_its_case_is() -> None:
    assert tag.trimmed([" VIP", "VIP ", "vip", "VIP", "V I P", "\u3000老客\u3000"]) == {
        "VIP",
        "vip",
        "V I P",
        "老客",
    }


def numbered(start: int, end: int) -> frozenset[str]:
    """Tags with these numbers."""
    return frozenset(f"t{number}" for number in range(start, end))


def test_a_member_has_at_most_three_thousand_tags_over_all_his_sets() -> None:
    own, others = numbered(0, 2000), numbered(1500, 2990)
    assert len(tag.added(own, others, numbered(2990, 3000)) | others) == TAGS_MAX
    with pytest.raises(Refused) as refused:
        tag.added(own, others, numbered(2990, 3001))
    assert refused.value.reason == "TOO_MANY_TAGS"


def test_who_has_too_many_already_is_not_refused_what_he_has() -> None:
    """Two members of 2,000 tags each were merged: a repeat still changes nothing."""
    own, others = numbered(0, 2000), numbered(2000, 4000)
    assert tag.added(own, others, numbered(0, 5)) == own
    assert tag.added(own, others, numbered(2000, 2005)) == own | numbered(2000, 2005)
    with pytest.raises(Refused):
        tag.added(own, others, numbered(4000, 4001))


# ---- tasks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.parametrize("wanted", [TaskState.DONE, TaskState.CANCELLED])
def test_a_task_ends_once_and_stays_as_it_ended(state: TaskState, wanted: TaskState) -> None:
    """Ending it again as it has ended is no mistake; ending it otherwise is."""
    if state in (TaskState.OPEN, wanted):
        assert follow_up.ends(state, wanted) == (state is TaskState.OPEN)
    else:
        with pytest.raises(Refused) as refused:
            follow_up.ends(state, wanted)
        assert refused.value.reason == "TASK_ENDED"


def test_only_an_open_task_is_changed() -> None:
    follow_up.check_open(TaskState.OPEN)
    for state in (TaskState.DONE, TaskState.CANCELLED):
        with pytest.raises(Refused) as refused:
            follow_up.check_open(state)
        assert refused.value.reason == "TASK_ENDED"
