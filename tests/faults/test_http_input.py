"""Bad requests by the thousand: what is documented, or one sentence, soon, and in little memory."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
import requests

from tests.faults.http_inputs import (
    DEADLINE_SECONDS,
    bearer,
    drawn,
    says_why,
    target,
    thrown,
)
from tests.faults.tally import tally

LEAK_KB = 300_000
"""What a service may grow by, its caches of compiled descriptions and the test's own included."""
TURN = 5_000
"""Requests to one store: each that is accepted makes lists longer."""


def still_well(url: str) -> bool:
    """The service answers as before."""
    found = requests.get(f"{url}/alerts", timeout=DEADLINE_SECONDS)
    return found.status_code == 200 and found.json()["total"] == 2


def swollen_since(before: int) -> int:
    """Kilobytes by which the largest size of this process grew."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def test_answers_to_what_the_description_allows_and_forbids_are_those_it_announces(tmp_path):
    with target(tmp_path) as goal:
        seen = drawn(goal, examples=3, number=1)
        assert still_well(goal.url)
    assert {200, 204, 404, 422} <= set(seen), seen
    tally("HTTP request drawn from the API's description", tried=seen.total())


def test_requests_gone_wrong_are_answered_or_refused_in_a_sentence(tmp_path):
    with target(tmp_path) as goal:
        seen = thrown(goal, 800, 1)
        assert still_well(goal.url)
    assert {200, 201, 400, 401, 403, 404, 405, 413, 422} <= set(seen), seen
    assert seen[None] < 0.1 * seen.total()
    tally("HTTP request gone wrong", tried=seen.total())


def test_what_is_repeated_of_a_request_keeps_to_one_short_line(tmp_path):
    with target(tmp_path) as goal:
        for path in ("/alerts/a%0Ab%00c", f"/alerts/{'a' * 20_000}", "/feed/alerts-%0A.atom"):
            found = requests.get(goal.url + path, timeout=DEADLINE_SECONDS)
            says_why(found.status_code, found.headers["Content-Type"], found.content)
            assert found.status_code == 404
        form = {**bearer("admin"), "Content-Type": "multipart/form-data"}
        link = f"{goal.url}/subscriptions/x/unsubscribe/y"
        found = requests.post(link, b"a", headers=form, timeout=DEADLINE_SECONDS)
        says_why(found.status_code, found.headers["Content-Type"], found.content)
        assert found.status_code == 400


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_from_the_description(tmp_path):
    before, seen = None, Counter()
    for number in range(5):
        with target(tmp_path / str(number)) as goal:
            seen += drawn(goal, examples=70, number=100 + number)
            assert still_well(goal.url)
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert seen.total() > 10_000 and swollen_since(before) < LEAK_KB
    tally("HTTP request drawn from the API's description", tried=seen.total())


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_requests_gone_wrong(tmp_path):
    before, seen = None, Counter()
    for number in range(20):
        with target(tmp_path / str(number)) as goal:
            seen += thrown(goal, TURN, 200 + number)
            assert still_well(goal.url)
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert seen.total() >= 100_000 and swollen_since(before) < LEAK_KB
    tally("HTTP request gone wrong", tried=seen.total())
