"""Downloads: resumed, checked, bounded, patient, and never to an address that is not allowed."""

import hashlib
import math
import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from daemon.acquire.files import Checksum, Downloads, WrongChecksum, md5_list, safe_name
from daemon.acquire.http import Caller, Refused, Unreachable, keeps_tls, xml_of
from daemon.acquire.watcher import AcquireError, Stopped
from tests.sites import LOOPBACK, Held, Reply, caller, downloads, site

BODY = random.Random(1).randbytes(300_000)
MD5 = Checksum("md5", hashlib.md5(BODY).hexdigest())


@pytest.fixture
def server():
    with site() as found:
        yield found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    held = Held(BODY, cuts=(100_000, 50_000))
    server.on("/a.tif", held)
    path = downloads().fetch(f"{server.url}/a.tif", tmp_path / "a.tif", checksum=MD5)
    assert path.read_bytes() == BODY and names(tmp_path) == ["a.tif"]
    ranges = [call.headers.get("Range") for call in server.calls]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert {call.headers.get("If-Range") for call in server.calls[1:]} == {held.etag}
    downloads().fetch(f"{server.url}/a.tif", tmp_path / "a.tif", checksum=MD5, size=len(BODY))
    assert len(server.calls) == 3  # there already


def test_a_download_survives_the_process(server, tmp_path):
    """What a killed process left is taken up by the next one."""
    held = Held(BODY, cuts=(120_000,))
    server.on("/a.tif", held)
    stopping = Downloads(caller(wait=lambda _: True), 1 << 30)
    with pytest.raises(Stopped):
        stopping.fetch(f"{server.url}/a.tif", tmp_path / "a.tif")
    assert names(tmp_path) == [".a.tif.note", ".a.tif.part"]
    downloads().fetch(f"{server.url}/a.tif?signature=anew", tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == BODY
    assert server.calls[-1].headers["Range"] == "bytes=120000-"


def test_a_file_that_changed_in_between_is_begun_anew(server, tmp_path):
    held = Held(BODY, cuts=(100_000,))
    server.on("/a.tif", held)
    with pytest.raises(Stopped):
        Downloads(caller(wait=lambda _: True), 1 << 30).fetch(f"{server.url}/a.tif", tmp_path / "a")
    held.body = BODY[::-1]
    downloads().fetch(f"{server.url}/a.tif", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == BODY[::-1]


def test_without_anything_to_tell_versions_apart_nothing_is_resumed(server, tmp_path):
    server.on("/a.tif", Held(BODY, cuts=(100_000,), ranges=False))
    assert downloads().fetch(f"{server.url}/a.tif", tmp_path / "a").read_bytes() == BODY
    assert all("Range" not in call.headers for call in server.calls)


def test_a_server_that_gives_another_range_is_not_believed(server, tmp_path):
    def odd(request):
        if "Range" in request.headers:
            return Reply(206, BODY[:10], {"ETag": '"1"', "Content-Range": "bytes 0-9/300000"})
        return Reply(200, BODY, {"ETag": '"1"'}, cut=1000 if len(server.calls) == 1 else None)

    server.on("/a.tif", odd)
    assert downloads().fetch(f"{server.url}/a.tif", tmp_path / "a").read_bytes() == BODY


def test_wrong_bytes_are_fetched_once_more_and_never_get_the_name(server, tmp_path):
    held = Held(BODY[:-1] + b"?")
    server.on("/a.tif", held)
    with pytest.raises(WrongChecksum, match="twice"):
        downloads().fetch(f"{server.url}/a.tif", tmp_path / "a.tif", checksum=MD5)
    assert names(tmp_path) == [] and len(server.calls) == 2
    replies = iter([BODY[:-1] + b"?", BODY])
    server.on("/a.tif", lambda _: Reply(200, next(replies)))
    path = downloads().fetch(f"{server.url}/a.tif", tmp_path / "a.tif", checksum=MD5)
    assert path.read_bytes() == BODY


def test_a_file_cut_short_by_its_server_is_noticed_by_its_size(server, tmp_path):
    server.on("/a.tif", Reply(200, BODY[:1000]))
    with pytest.raises(WrongChecksum, match="1000 bytes"):
        downloads().fetch(f"{server.url}/a.tif", tmp_path / "a.tif", size=len(BODY))


@pytest.mark.parametrize("said", [True, False])
def test_too_large_a_file_is_refused_said_or_not(server, tmp_path, said):
    if said:
        server.on("/a.tif", Reply(200, BODY))
    else:
        chunked = b"".join(b"%x\r\n%s\r\n" % (1000, BODY[:1000]) for _ in range(300)) + b"0\r\n\r\n"
        server.on("/a.tif", Reply(200, chunked, {"Transfer-Encoding": "chunked"}))
    with pytest.raises(AcquireError, match="max_bytes"):
        downloads(most=200_000).fetch(f"{server.url}/a.tif", tmp_path / "a.tif")
    assert "a.tif" not in names(tmp_path)


def test_a_server_that_asks_for_time_gets_it(server, tmp_path):
    """429 with Retry-After in seconds, then as a date, then an answer."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    replies = iter([Reply(429, b"", {"Retry-After": "1"}), Reply(503, b"", {"Retry-After": later})])
    times = []

    def busy(_):
        times.append(time.monotonic())
        return next(replies, Reply(200, BODY))

    server.on("/a.tif", busy)
    assert downloads().fetch(f"{server.url}/a.tif", tmp_path / "a").read_bytes() == BODY
    assert times[1] - times[0] >= 1.0 and times[2] - times[0] >= 1.0


def test_a_server_that_asks_for_too_much_time_is_left_alone(server):
    server.on("/x", Reply(429, b"", {"Retry-After": "86400"}))
    with pytest.raises(Unreachable, match="429"):
        caller().get(f"{server.url}/x")
    assert len(server.calls) == 1


def test_a_server_that_is_down_is_tried_a_few_times_and_named_without_its_query(server):
    waits = []
    # at no pace of its own, so that every wait is one for a retry
    patient = caller(per_second=math.inf, wait=lambda seconds: waits.append(seconds) and False)
    server.on("/x", Reply(500))
    with pytest.raises(Unreachable, match="500") as error:
        patient.get(f"{server.url}/x", params={"signature": "hidden"})
    assert "hidden" not in str(error.value) and len(server.calls) == 5
    assert len(waits) == 4 and waits[-1] > waits[0]
    server.down()
    with pytest.raises(Unreachable, match="ConnectError"):
        patient.get(f"{server.url}/x")


def test_what_another_try_does_not_change_is_not_tried_again(server):
    server.on("/x", Reply(403))
    with pytest.raises(Refused, match="credentials"):
        caller().get(f"{server.url}/x")
    assert len(server.calls) == 1


def test_only_public_addresses_are_called_unless_a_network_is_named(server, tmp_path):
    server.on("/a.tif", Reply(200, BODY))
    with pytest.raises(AcquireError, match="acquire_networks"):
        Downloads(Caller(), 1 << 30).fetch(f"{server.url}/a.tif", tmp_path / "a")
    server.on("/leads", Reply(302, b"", {"Location": "http://169.254.169.254/latest"}))
    with pytest.raises(AcquireError, match="acquire_networks"):
        downloads().fetch(f"{server.url}/leads", tmp_path / "a")
    server.on("/on", Reply(302, b"", {"Location": "/a.tif"}))
    assert downloads().fetch(f"{server.url}/on", tmp_path / "a").read_bytes() == BODY
    assert len(server.asked("/a.tif")) == 1


def test_a_redirect_never_leaves_tls():
    answer = httpx.Response(302, headers={"Location": "http://example.org/"})
    answer.request = httpx.Request("GET", "https://example.org/")
    with pytest.raises(AcquireError, match="unprotected"):
        keeps_tls(answer)


def test_calls_keep_their_pace(server):
    server.on("/x", Reply(200))
    slow = Caller(LOOPBACK, per_second=20)
    began = time.monotonic()
    for _ in range(5):
        slow.get(f"{server.url}/x")
    assert time.monotonic() - began >= 4 / 20


def test_checksums_are_read_as_providers_write_them(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    sha = hashlib.sha256(BODY).hexdigest()
    assert Checksum.multihash(f"1220{sha}").of(tmp_path / "a")
    assert Checksum.multihash(f"d50110{MD5.digest}") == MD5 and MD5.of(tmp_path / "a")
    assert not Checksum.multihash(f"1220{sha[::-1]}").of(tmp_path / "a")
    assert Checksum.multihash("1620" + sha) is None and Checksum.multihash(None) is None
    assert Checksum.md5(f'"{MD5.digest.upper()}"') == MD5 and Checksum.md5("abc-2") is None
    listed = f"{MD5.digest}  ./sub/a.7z.001\n{sha[:32]} *b.7z\nno line\n"
    assert md5_list(listed) == {"a.7z.001": MD5.digest, "b.7z": sha[:32]}
    assert md5_list(MD5.digest) == {"": MD5.digest}


def test_names_are_safe_and_differ_where_what_they_stand_for_does():
    assert (
        safe_name("32-2022-0505-6280-LA93-0M20-E080.jp2") == "32-2022-0505-6280-LA93-0M20-E080.jp2"
    )
    odd = [safe_name(text) for text in ("../../etc/passwd", "a/b", "a_b", "é" * 500, ".", "")]
    assert len(set(odd)) == len(odd)
    assert all(name and "/" not in name and not name.startswith(".") for name in odd)


def test_xml_with_entities_is_refused():
    bomb = b'<!DOCTYPE a [<!ENTITY b "x">]><a>&b;</a>'
    with pytest.raises(AcquireError, match="document type"):
        xml_of(bomb, "it")
    with pytest.raises(AcquireError, match="no XML"):
        xml_of(b"<a>", "it")
