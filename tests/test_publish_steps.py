"""What is next for every status the platform may say: a table, without a platform."""

import pytest

from daemon.publish.steps import (
    CONTENT_TAG,
    SHOWN_TAG,
    Act,
    Seen,
    of_delivery,
    of_service,
)
from updater.deliveries import SUMS, Part

PARTS = (Part("a.gpkg", 10, "0" * 32), Part("b.delete", 5, "1" * 32))
WHOLE = {"ocsge/a.gpkg": 10, "ocsge/b.delete": 5, SUMS: 7}
MARKED = {CONTENT_TAG: "c"}


def upload(status, **more):
    return {"_id": "u", "status": status, "tags": MARKED, **more}


def entity(status):
    return {"_id": "e", "status": status}


def after(seen, *, retry=False, checks=(), parts=PARTS):
    return of_delivery(seen, parts, "c", sums_size=7, checks=checks, retry=retry)


@pytest.mark.parametrize(
    ("status", "act", "again"),
    [
        (None, Act.CREATE_UPLOAD, None),
        ("DELETED", Act.CREATE_UPLOAD, None),
        ("CREATED", Act.WAIT, None),
        ("CHECKING", Act.WAIT, None),
        ("GENERATING", Act.WAIT, None),
        ("MODIFYING", Act.WAIT, None),
        ("SOMETHING-NEW", Act.WAIT, None),
        ("CLOSED", Act.PROCESS, None),
        ("UNSTABLE", Act.FAIL, Act.REOPEN),
    ],
)
def test_every_status_of_a_delivery(status, act, again):
    seen = Seen(upload=upload(status) if status else None)
    assert after(seen).act is act
    assert after(seen, retry=True).act is (again or act)


@pytest.mark.parametrize(
    ("tree", "act", "send", "sums", "stray"),
    [
        ({}, Act.SEND, {"a.gpkg", "b.delete"}, True, set()),
        (WHOLE, Act.CLOSE, set(), False, set()),
        (WHOLE | {"ocsge/a.gpkg": 4}, Act.SEND, {"a.gpkg"}, False, {"ocsge/a.gpkg"}),
        (WHOLE | {SUMS: 3}, Act.SEND, set(), True, {SUMS}),
        ({"ocsge/a.gpkg": 10}, Act.SEND, {"b.delete"}, True, set()),
        (WHOLE | {"ocsge/old.gpkg": 1}, Act.CLEAR, set(), False, {"ocsge/old.gpkg"}),
    ],
)
def test_what_an_open_delivery_lacks(tree, act, send, sums, stray):
    step = after(Seen(upload=upload("OPEN"), tree=tree))
    assert step.act is act and {part.name for part in step.send} == send
    assert (step.sums, set(step.stray)) == (sums, stray)


def test_files_of_another_content_are_removed_before_any_is_sent():
    other = upload("OPEN", tags={CONTENT_TAG: "again"})
    assert after(Seen(upload=other, tree=WHOLE)).act is Act.CLEAR
    assert after(Seen(upload=other)).act is Act.MARK
    assert after(Seen(upload=upload("OPEN", tags={}), tree={})).act is Act.MARK


def test_checks_that_are_missing_are_asked_for_and_one_that_failed_stops():
    ran = {"passed": [{"_id": "x", "check": {"_id": "standard"}}]}
    closed = Seen(upload=upload("CLOSED"), checks=ran)
    assert after(closed, checks=["standard"]).act is Act.PROCESS
    assert after(closed, checks=["standard", "extra"]).act is Act.CHECK
    failed = Seen(upload=upload("CLOSED"), checks={"failed": ran["passed"]})
    assert after(failed).act is Act.FAIL and after(failed, retry=True).act is Act.REOPEN


@pytest.mark.parametrize(
    ("execution", "stored", "act", "again"),
    [
        ("CREATED", "CREATED", Act.LAUNCH, None),
        ("WAITING", "CREATED", Act.WAIT, None),
        ("PROGRESS", "GENERATING", Act.WAIT, None),
        ("FAILURE", "UNSTABLE", Act.FAIL, Act.RESTART),
        ("ABORTED", "CREATED", Act.FAIL, Act.RESTART),
        ("SUCCESS", "CREATED", Act.WAIT, None),
        ("SUCCESS", "GENERATING", Act.WAIT, None),
        ("SUCCESS", "MODIFYING", Act.WAIT, None),
        ("SUCCESS", "GENERATED", Act.DONE, None),
        ("SUCCESS", "UNSTABLE", Act.FAIL, None),
        ("SUCCESS", "DELETED", Act.FAIL, None),
    ],
)
def test_every_status_of_a_processing_and_its_data(execution, stored, act, again):
    old = entity("FAILURE")
    seen = Seen(upload=upload("CLOSED"), stored=entity(stored), fed=[old, entity(execution)])
    assert after(seen).act is act
    assert after(seen, retry=True).act is (again or act)


def test_what_is_made_of_stored_data_needs_no_delivery():
    assert after(Seen(), parts=None).act is Act.PROCESS
    assert after(Seen(stored=entity("UNSTABLE")), parts=None).act is Act.FAIL


@pytest.mark.parametrize(
    ("offering", "shown", "followed", "act", "again"),
    [
        (None, None, False, Act.OFFER, None),
        ("PUBLISHING", None, False, Act.WAIT, None),
        ("MODIFYING", None, True, Act.WAIT, None),
        ("UNPUBLISHING", None, False, Act.WAIT, None),
        ("PUBLISHED", None, False, Act.SYNCHRONISE, None),
        ("PUBLISHED", "older", False, Act.SYNCHRONISE, None),
        ("PUBLISHED", "older", True, Act.NOTE, None),
        ("PUBLISHED", "c", False, Act.DONE, None),
        ("UNSTABLE", "c", False, Act.FAIL, Act.SYNCHRONISE),
    ],
)
def test_every_status_of_an_offering(offering, shown, followed, act, again):
    configuration = {"status": "PUBLISHED", "tags": MARKED | ({SHOWN_TAG: shown} if shown else {})}
    theirs = {"_id": "x", "status": "UNSTABLE", "endpoint": {"_id": "another"}}
    ours = [{"_id": "o", "status": offering, "endpoint": {"_id": "here"}}] if offering else []
    for retry, wanted in ((False, act), (True, again or act)):
        step = of_service(
            configuration,
            [theirs, *ours],
            content="c",
            endpoint="here",
            synchronised=followed,
            retry=retry,
        )
        assert step.act is wanted


def test_a_configuration_is_made_changed_and_waited_for():
    def step(configuration):
        return of_service(
            configuration,
            [{"_id": "o", "status": "PUBLISHED", "endpoint": {"_id": "here"}}],
            content="c",
            endpoint="here",
            synchronised=False,
        ).act

    assert step(None) is Act.CONFIGURE
    assert step({"status": "PUBLISHED", "tags": {CONTENT_TAG: "older"}}) is Act.RECONFIGURE
    assert step({"status": "SYNCHRONIZING", "tags": MARKED}) is Act.WAIT
