"""Storage that speaks S3: a real implementation of it over HTTP that checks every signature."""

import io
import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from urllib.request import Request as Call
from urllib.request import urlopen

import botocore.session
import numpy as np
import pytest
from botocore.config import Config

from daemon.acquire.settings import S3Source
from tests.acquiring import image_of, inbox, look, state
from tests.integration.broker import free_port
from tests.ortho import delivery, tile_name, zipped
from tests.sites import Reply, as_json, site
from tests.test_acquire_stac import geotiff

BUCKET = "imagery"
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def server():
    """moto's server as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"S3_IGNORE_SUBDOMAIN_BUCKETNAME": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until, "the S3 server never answered"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def post(url, body):
    with urlopen(Call(url, body.encode(), {"Content-Type": "text/plain"}, method="POST")) as answer:
        return json.load(answer)


def client(server, service, key="test", hidden="test"):
    return botocore.session.get_session().create_client(
        service,
        endpoint_url=server,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=hidden,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket whose every later call must be signed by a known key."""
    post(f"{server}/moto-api/reset-auth", "inf")
    urlopen(Call(f"{server}/moto-api/reset", b"", method="POST")).close()
    iam = client(server, "iam")
    iam.create_user(UserName="millesimed")
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
    }
    iam.put_user_policy(UserName="millesimed", PolicyName="p", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="millesimed")["AccessKey"]
    s3 = client(server, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    s3.create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("MILLESIMED_ACQUIRE_STORE_ACCESS_KEY", key["AccessKeyId"])
    monkeypatch.setenv("MILLESIMED_ACQUIRE_STORE_SECRET_KEY", key["SecretAccessKey"])
    post(f"{server}/moto-api/reset-auth", "0")  # from now on signatures are checked
    yield s3
    post(f"{server}/moto-api/reset-auth", "inf")


def source(server, **more):
    values = {"name": "store", "kind": "s3", "url": server, "bucket": BUCKET, "sensor": "pva"}
    return S3Source(**{**values, "calls_per_second": 100, **more})


DATED = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})T"


def image(seed=1):
    pixels = np.random.default_rng(seed).integers(1, 255, (3, 16, 16)).astype("uint8")
    return geotiff(pixels, gsd=0.2, crs="EPSG:2154", west=500_000, north=6_280_000)


def test_objects_are_dated_by_their_keys_and_announced_once(bucket, server, tmp_path):
    keys = [
        "in/20240611T.tif",
        "in/été 2024 & co+/20240612T.tif",
        "in/readme.txt",
        "out/20240613T.tif",
    ]
    for number, key in enumerate(keys):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=image(number))
    wanted = source(server, prefix="in/", dated=DATED)
    tally = look(tmp_path, wanted)
    assert tally.error is None and tally.failed == 0
    items = inbox(tmp_path)
    assert {item.acquired.date() for item in items.values()} == {
        date(2024, 6, 11),
        date(2024, 6, 12),
    }
    assert sorted(i.properties.title for i in items.values()) == sorted(keys[:2])
    for item in items.values():
        body = image_of(item).read_bytes()
        assert body in {image(0), image(1)}
    assert look(tmp_path, wanted).events == []
    bucket.put_object(Bucket=BUCKET, Key=keys[0], Body=image(9))
    (event,) = look(tmp_path, wanted).events
    assert image_of(inbox(tmp_path)[event]).read_bytes() == image(9)
    bucket.delete_object(Bucket=BUCKET, Key=keys[1])
    look(tmp_path, wanted)
    assert list(state(tmp_path, wanted).cursor["seen"]) == [keys[0]]


def test_metadata_dates_an_object_and_without_any_it_is_owed(bucket, server, tmp_path):
    bucket.put_object(
        Bucket=BUCKET, Key="a.tif", Body=image(1), Metadata={"acquired": "2024-06-11T09:00:00Z"}
    )
    bucket.put_object(Bucket=BUCKET, Key="b.tif", Body=image(2))
    tally = look(tmp_path, source(server))
    assert len(tally.events) == 1 and tally.owed == 1
    (item,) = inbox(tmp_path).values()
    assert item.acquired.hour == 9
    (debt,) = state(tmp_path, source(server)).owed.values()
    assert debt.label == "b.tif" and "acquired" in debt.why


def test_every_page_of_a_listing_is_read(bucket, server, tmp_path):
    for number in range(5):
        bucket.put_object(Bucket=BUCKET, Key=f"{number}/2024061{number}T.tif", Body=image(number))
    assert len(look(tmp_path, source(server, dated=DATED, page_size=2)).events) == 5


def test_a_delivery_of_ign_is_unpacked(bucket, server, tmp_path):
    archive = zipped(delivery(tmp_path / "made", day="2022-06-15"), tmp_path / "D032.zip")
    bucket.put_object(Bucket=BUCKET, Key="ign/D032.zip", Body=archive.read_bytes())
    (event,) = look(tmp_path, source(server, sensor=None)).events
    item = inbox(tmp_path)[event]
    assert item.acquired.date() == date(2022, 6, 15) and image_of(item).name == tile_name()


def test_an_object_sent_in_parts_has_no_md5_and_comes_all_the_same(bucket, server, tmp_path):
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="20240611T.tif")["UploadId"]
    part = {"Bucket": BUCKET, "Key": "20240611T.tif", "UploadId": upload}
    tag = bucket.upload_part(**part, PartNumber=1, Body=io.BytesIO(image()))["ETag"]
    bucket.complete_multipart_upload(
        **part, MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]}
    )
    tally = look(tmp_path, source(server, dated=DATED))
    assert len(tally.events) == 1
    assert re.search(r'-1"$', bucket.head_object(Bucket=BUCKET, Key="20240611T.tif")["ETag"])


@pytest.mark.parametrize("word", ["ACCESS_KEY", "SECRET_KEY"])
def test_a_wrong_key_is_refused_and_named_nowhere(bucket, server, tmp_path, monkeypatch, word):
    monkeypatch.setenv(f"MILLESIMED_ACQUIRE_STORE_{word}", "AKIAWRONGWRONGWRONG1")
    error = look(tmp_path, source(server)).error
    assert "403" in error and "AKIAWRONG" not in error


def test_an_object_that_was_replaced_since_it_was_listed_is_not_mixed_up(tmp_path):
    """The listing says one ETag, the object has another by now: owed until listed anew."""
    listing = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        "<IsTruncated>false</IsTruncated><Contents><Key>20240611T.tif</Key>"
        "<LastModified>2024-06-11T12:00:00.000Z</LastModified><ETag>&quot;old&quot;</ETag>"
        "<Size>10</Size></Contents></ListBucketResult>"
    )
    with site() as found:
        found.on(f"/{BUCKET}", Reply(200, listing.encode()))
        found.on(f"/{BUCKET}/20240611T.tif", Reply(412))
        tally = look(tmp_path, source(found.url, dated=DATED))
        assert tally.owed == 1 and found.calls[-1].headers["If-Match"] == '"old"'
        found.on(f"/{BUCKET}", as_json({}))
        assert "XML" in look(tmp_path, source(found.url, dated=DATED)).error
