"""Unpacking: what is wanted, whole or not at all, never outside, never more than allowed."""

import io
import stat
import struct
import zipfile
import zlib

import py7zr
import pytest

from daemon.acquire.archives import BadArchive, delivered, unpack
from tests.ortho import delivery, sevenzipped, tile_name, volumes, zipped

MOST = 1 << 24


def everything(_):
    return True


@pytest.mark.parametrize("packed", [zipped, sevenzipped])
def test_images_and_vector_files_come_out_and_nothing_else(tmp_path, packed):
    source = delivery(tmp_path / "made")
    (source / "lisez-moi.pdf").write_bytes(b"%PDF")
    suffix = ".zip" if packed is zipped else ".7z"
    archive = packed(source, tmp_path / f"BDORTHO{suffix}")
    out = unpack([archive], tmp_path / "out", wanted=delivered, most=MOST)
    (image,) = out.rglob(tile_name())
    assert image.read_bytes() == (source / tile_name()).read_bytes()
    suffixes = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert {".tif", ".shp", ".dbf", ".shx"} <= suffixes and ".pdf" not in suffixes
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    archive.unlink()
    assert unpack([archive], tmp_path / "out", wanted=delivered, most=MOST) == out  # there already


def test_volumes_are_one_archive(tmp_path):
    source = delivery(tmp_path / "made")
    parts = volumes(sevenzipped(source, tmp_path / "BDORTHO.7z"), 5_000)
    assert len(parts) > 2
    out = unpack(parts, tmp_path / "out", wanted=delivered, most=MOST)
    assert [p.name for p in out.rglob("*.tif")] == [tile_name()]


def test_a_volume_that_is_missing_is_noticed(tmp_path):
    source = delivery(tmp_path / "made")
    parts = volumes(sevenzipped(source, tmp_path / "BDORTHO.7z"), 5_000)
    parts[-1].unlink()
    with pytest.raises(BadArchive):
        unpack(parts[:-1], tmp_path / "out", wanted=delivered, most=MOST)
    assert not (tmp_path / "out").exists()


def zip_of(path, name, body=b"x", mode=0o100644):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, body)
    return path


@pytest.mark.parametrize("name", ["../evil.tif", "/evil.tif", "a/../../evil.tif", "a\\..\\e.tif"])
def test_names_that_climb_out_are_refused(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = zip_of(inside / "a.zip", name)
    with pytest.raises(BadArchive, match="leads elsewhere"):
        unpack([archive], inside / "out", wanted=everything, most=MOST)
    assert [p.name for p in tmp_path.iterdir()] == ["inside"]
    assert [p.name for p in inside.iterdir()] == ["a.zip"]


def renamed(path, old, new):
    """A 7z whose only member is called something its maker would not let it be called."""
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writef(io.BytesIO(b"x"), old)
    body = path.read_bytes().replace(old.encode("utf-16-le"), new.encode("utf-16-le"))
    begin, size = struct.unpack("<QQ", body[12:28])
    next_crc = zlib.crc32(body[32 + begin : 32 + begin + size])
    start = body[12:28] + struct.pack("<I", next_crc)
    path.write_bytes(body[:8] + struct.pack("<I", zlib.crc32(start)) + start + body[32:])
    return path


def test_a_7z_that_climbs_out_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    fine = renamed(inside / "a.7z", "aa/good.tif", "bb/good.tif")
    assert [
        p.name for p in unpack([fine], inside / "fine", wanted=everything, most=9).rglob("*.tif")
    ]
    for name in ("../evil.tif", "/a/evil.tif"):
        with pytest.raises(BadArchive):
            archive = renamed(inside / "b.7z", "aa/evil.tif", name)
            unpack([archive], inside / "out", wanted=everything, most=MOST)
    assert not list(tmp_path.rglob("evil.tif")) and not (inside / "out").exists()


def test_links_are_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", "a.tif", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(BadArchive, match="links"):
        unpack([archive], tmp_path / "out", wanted=everything, most=MOST)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.tif").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as target:
        target.writeall(tmp_path / "made", "made")
    with pytest.raises(BadArchive, match="links"):
        unpack([tmp_path / "a.7z"], tmp_path / "out", wanted=everything, most=MOST)


def test_more_bytes_than_allowed_are_refused_before_they_are_written(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "zeros.tif").write_bytes(bytes(5_000_000))
    for archive in (
        zipped(tmp_path / "made", tmp_path / "a.zip"),
        sevenzipped(tmp_path / "made", tmp_path / "a.7z"),
    ):
        assert archive.stat().st_size < 10_000
        with pytest.raises(BadArchive, match="max_bytes"):
            unpack([archive], tmp_path / "out", wanted=everything, most=1_000_000)


def test_a_damaged_archive_leaves_nothing(tmp_path):
    source = delivery(tmp_path / "made")
    for archive in (
        zipped(source, tmp_path / "a.zip"),
        sevenzipped(source, tmp_path / "a.7z"),
    ):
        body = bytearray(archive.read_bytes())
        body[200:260] = bytes(60)
        archive.write_bytes(body)
        with pytest.raises(BadArchive, match="damaged"):
            unpack([archive], tmp_path / "out", wanted=delivered, most=MOST)
        assert not (tmp_path / "out").exists()
    (tmp_path / "no.7z").write_bytes(b"no archive")
    with pytest.raises(BadArchive):
        unpack([tmp_path / "no.7z"], tmp_path / "out", wanted=delivered, most=MOST)
