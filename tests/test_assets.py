"""Which files an event may make the service open, and that they stay what they were."""

import hashlib
import os
import socket

import pytest

from daemon.assets import (
    AssetChanged,
    AssetMissing,
    AssetRefused,
    assert_unchanged,
    asset_path,
    sealed,
)
from schemas.acquisition import Asset
from tests.faults.inputs import is_sentence
from tests.faults.tally import tally


def asset(href, **more):
    return Asset(href=str(href), **more)


def multihash(body, name="sha256"):
    prefix = {"sha256": "1220", "sha512": "1340", "sha1": "1114"}[name]
    return prefix + hashlib.new(name, body).hexdigest()


@pytest.fixture
def image(tmp_path):
    folder = tmp_path / "ortho"
    folder.mkdir()
    path = folder / "dalle 32 é.tif"
    path.write_bytes(b"II*\0" + bytes(2000))
    return path


def test_a_plain_path_and_a_file_address_lead_to_the_file(image):
    assert asset_path(asset(image)) == image
    assert asset_path(asset(image.as_uri())) == image
    assert asset_path(asset(image.as_uri().replace("file://", "file://localhost"))) == image
    assert asset_path(asset(image), [image.parent]) == image


REFUSED = [
    "https://example.org/a.tif",
    "s3://bucket/a.tif",
    "gs://bucket/a.tif",
    "zip:///a.zip!a.tif",
    "file://elsewhere/etc/hostname",
    "//elsewhere/a.tif",
    "file://[broken/a.tif",
    "/vsicurl/http://127.0.0.1/a.tif",
    "/vsizip//tmp/a.zip/a.tif",
    "/vsimem/a.tif",
    "file:///vsicurl/http%3A//h/a.tif",
    "/%76sicurl/http://h/a.tif",
    "/tmp/../etc/hostname",
    "/tmp/%2e%2e/etc/hostname",
    "/tmp/%2e./etc/hostname",
    "../etc/hostname",
    "setup.tif",
    "/tmp/a%00.tif",
    "/tmp/a\0.tif",
    "/tmp/a\n.tif",
    "/tmp/a%0a.tif",
    "/tmp/a%7f.tif",
    "/tmp%2fa.tif",
    "/tmp/a%zz.tif",
    "/tmp/a%",
    "/tmp/a%ff.tif",
    "/tmp/a.tif?b=c",
    "/tmp/a.tif#b",
    "file:",
    "file://",
    "/" + "a" * 300,
    "/" + "a/" * 2000,
    "/proc/self/environ",
    "/proc/self/mem",
    "/proc/kcore",
    "/sys/kernel/notes",
    "/dev/zero",
    "/dev/stdin",
    "/dev/../dev/null",
    "/",
    "/tmp",
    "GTIFF_DIR:1:/tmp/a.tif",
]


@pytest.mark.parametrize("href", REFUSED)
def test_what_is_no_plain_local_file_is_refused_with_a_sentence(href):
    with pytest.raises((AssetRefused, AssetMissing)) as caught:
        asset_path(asset(href))
    assert is_sentence(str(caught.value)), str(caught.value)
    missing = ("/" + "a/" * 2000, "/sys/kernel/notes", "/proc/kcore")
    assert isinstance(caught.value, AssetRefused) or href in missing
    tally("address of an image that may not be opened", tried=1)


def test_a_file_that_is_not_there_is_missing_and_not_refused(image):
    with pytest.raises(AssetMissing, match=r"none\.tif is not there"):
        asset_path(asset(image.with_name("none.tif")))
    with pytest.raises(AssetMissing):
        asset_path(asset(image / "below.tif"))


def test_pipes_sockets_and_links_in_a_circle_are_refused(image):
    pipe, circle, place = (image.with_name(n) for n in ("pipe.tif", "circle.tif", "socket.tif"))
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        for path in (pipe, circle, place):
            with pytest.raises(AssetRefused):
                asset_path(asset(path))


def test_links_are_followed_and_must_stay_inside_the_roots(image, tmp_path):
    outside, inside = tmp_path / "secret.tif", image.with_name("link.tif")
    outside.write_bytes(b"II*\0")
    inside.symlink_to(outside)
    folder = image.with_name("folder")
    folder.symlink_to(tmp_path)
    roots = [image.parent]
    assert asset_path(asset(inside)) == outside  # without roots any local file will do
    for way in (inside, outside, folder / "secret.tif", folder / "ortho" / ".." / "secret.tif"):
        with pytest.raises(AssetRefused):
            asset_path(asset(way), roots)
    assert asset_path(asset(folder / "ortho" / image.name), roots) == image
    beside = tmp_path / "ortho-other" / "a.tif"  # a name that begins like the root's
    beside.parent.mkdir()
    beside.write_bytes(b"II*\0")
    with pytest.raises(AssetRefused, match="asset_roots"):
        asset_path(asset(beside), roots)
    link = tmp_path / "link-to-root"
    link.symlink_to(image.parent)
    assert asset_path(asset(image), [link]) == image


def test_a_link_to_the_systems_files_is_refused(image):
    link = image.with_name("cpu.tif")
    link.symlink_to("/proc/cpuinfo")
    with pytest.raises(AssetRefused, match="system's own"):
        asset_path(asset(link))


@pytest.mark.parametrize("name", ["sha256", "sha512"])
def test_size_and_checksum_must_be_those_announced(image, name):
    body = image.read_bytes()
    sealed(asset(image, size=len(body), checksum=multihash(body, name)), image)
    with pytest.raises(AssetChanged, match="the event says 7"):
        sealed(asset(image, size=7), image)
    with pytest.raises(AssetChanged, match="checksum differs"):
        sealed(asset(image, checksum=multihash(b"other", name)), image)


@pytest.mark.parametrize("checksum", [multihash(b"", "sha1"), "1220abcd", "1240" + "0" * 64])
def test_a_checksum_that_cannot_be_checked_is_refused(image, checksum):
    with pytest.raises(AssetRefused, match="multihash"):
        sealed(asset(image, checksum=checksum), image)


def test_a_file_too_large_is_refused_before_it_is_read(image):
    with image.open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(AssetRefused, match="cut it into tiles"):
        sealed(asset(image, checksum=multihash(b"")), image)


def longer(path):
    with path.open("ab") as stream:
        stream.write(b"\0")


def one_bit(path):
    body = bytearray(path.read_bytes())
    body[900] ^= 1
    with path.open("r+b") as stream:
        stream.write(body)


def put_back_in_time(path):
    """The same size, and the time of change set back as if nothing had happened."""
    before = path.stat()
    one_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file(path):
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.with_name("new").write_bytes(body)
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [longer, one_bit, put_back_in_time, another_file])
@pytest.mark.parametrize("with_checksum", [True, False])
def test_a_change_while_the_file_is_read_is_seen(image, change, with_checksum):
    checksum = multihash(image.read_bytes()) if with_checksum else None
    seal = sealed(asset(image, checksum=checksum), image)
    assert_unchanged([seal])
    change(image)
    with pytest.raises(AssetChanged) as caught:
        assert_unchanged([seal])
    assert is_sentence(str(caught.value))
    tally("image changed while it was read", tried=1)


def test_a_touched_file_is_still_the_same_where_its_checksum_says_so(image):
    with_sum = sealed(asset(image, checksum=multihash(image.read_bytes())), image)
    without = sealed(asset(image), image)
    os.utime(image)
    assert_unchanged([with_sum])
    with pytest.raises(AssetChanged):
        assert_unchanged([without])


def test_a_file_that_goes_away_is_missing(image):
    seal = sealed(asset(image), image)
    image.unlink()
    with pytest.raises(AssetMissing, match="went away"):
        assert_unchanged([seal])
