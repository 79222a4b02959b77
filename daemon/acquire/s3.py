"""Storage that speaks S3: objects listed (ListObjectsV2), signed for (SigV4), fetched.

Keys have no order in time, so what was seen is kept by key and ETag. A listing is taken page by
page, and what has left the storage is forgotten at its end.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as Xml

import httpx
import pystac

from daemon.acquire.archives import VOLUME, delivered, unpack
from daemon.acquire.files import Checksum, Downloads, safe_name
from daemon.acquire.http import Caller, xml_of
from daemon.acquire.ign import graph_in, images_in, tile_item, tile_of
from daemon.acquire.settings import S3Source, aware, secret
from daemon.acquire.watcher import AcquireError, Cursor, Page, Ref
from daemon.announce import item_of, when
from detectors.raster import open_dataset
from schemas.policy import Sensor

MOST_PAGES: Final = 10_000
"""Pages of a listing: a server that leads in circles is left."""
DATED: Final = "x-amz-meta-acquired"
"""Metadata of an object that says when its ground was seen."""


class S3Watcher:
    """One prefix of one bucket."""

    def __init__(
        self, settings: S3Source, folder: Path, caller: Caller, downloads: Downloads
    ) -> None:
        """
        Raises:
            AcquireError: keys are given and the package that signs is not installed.
        """
        self._settings, self._folder = settings, folder
        self._caller, self._downloads = caller, downloads
        access, hidden = (secret(settings.name, w) for w in ("access_key", "secret_key"))
        self._auth: httpx.Auth | None = None
        if access is not None and hidden is not None:
            self._auth = _Signature(
                access.get_secret_value(), hidden.get_secret_value(), settings.region
            )

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """Objects that are new or have changed."""
        seen: dict[str, str] = dict(cursor.get("seen", {}))
        there: set[str] = set()
        for objects in self._listing():
            refs = []
            for key, tag, size, changed in objects:
                there.add(key)
                late = self._settings.since is None or changed >= aware(self._settings.since)
                wanted = re.search(self._settings.pattern, key) is not None
                if wanted and late and not key.endswith("/") and seen.get(key) != tag:
                    seen[key] = tag
                    refs.append(Ref(f"{key}@{tag}", key, {"key": key, "etag": tag, "size": size}))
            yield Page(refs, {"seen": dict(seen)})
        yield Page([], {"seen": {key: tag for key, tag in seen.items() if key in there}})

    def _listing(self) -> Iterator[list[tuple[str, str, int, datetime]]]:
        """Key, ETag, size and time of every object, page by page."""
        token: str | None = None
        for _ in range(MOST_PAGES):
            asked = {"list-type": "2", "prefix": self._settings.prefix, "encoding-type": "url"}
            asked |= {"max-keys": str(self._settings.page_size)}
            asked |= {"continuation-token": token} if token else {}
            query = "&".join(f"{k}={quote(v, safe='-_.~')}" for k, v in sorted(asked.items()))
            url = f"{self._settings.url}/{self._settings.bucket}?{query}"
            root = xml_of(self._call("GET", url).content, self._settings.bucket)
            if _local(root.tag) != "ListBucketResult":
                raise AcquireError(f"{self._settings.url} does not speak S3; check `url`.")
            yield [_object(node) for node in root if _local(node.tag) == "Contents"]
            token = _text(root, "NextContinuationToken")
            if _text(root, "IsTruncated") != "true" or not token:
                return
        raise AcquireError(f"{self._settings.bucket} has pages without end; see its provider.")

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Download an object; an archive is unpacked as a delivery of IGN."""
        key, tag = ref.data["key"], ref.data["etag"]
        path = self._downloads.fetch(
            self._address(key),
            self._folder / safe_name(ref.key) / safe_name(key.rsplit("/", 1)[-1]),
            checksum=Checksum.md5(tag) if self._settings.etag_is_md5 else None,
            size=ref.data["size"],
            auth=self._auth,
            version=tag,
        )
        settings = self._settings
        if VOLUME.search(path.name):
            folder = unpack(
                [path], path.parent / "unpacked", wanted=delivered, most=settings.max_bytes
            )
            graph, images = graph_in([folder]), images_in([folder])
            if not images:
                raise AcquireError(f"{key} holds no image; correct `pattern` of the source.")
            sensor = settings.sensor or Sensor.PVA
            return [
                tile_item(p, graph, sensor=sensor, departement=settings.departement) for p in images
            ]
        if settings.sensor is None:
            raise AcquireError(f"Nobody says what took {key}; give `sensor` in the settings.")
        open_dataset(path).close()
        tile = tile_of(path.name)
        return [
            item_of(
                path,
                acquired=self._date(key),
                sensor=settings.sensor,
                departement=settings.departement or (tile.departement if tile else None),
            )
        ]

    def _date(self, key: str) -> datetime:
        """When the ground of an object was seen: by its key, or by its metadata."""
        if self._settings.dated is not None:
            found = re.search(self._settings.dated, key)
            if found is None:
                raise AcquireError(f"{key} holds no date as `dated` describes it; correct that.")
            return when("{year}-{month:0>2}-{day:0>2}".format(**found.groupdict()))
        text = self._call("HEAD", self._address(key)).headers.get(DATED)
        if not text:
            raise AcquireError(
                f"Nobody says when {key} was taken; give it the metadata `acquired`, or `dated` in "
                "the settings."
            )
        return when(text)

    def _address(self, key: str) -> str:
        return f"{self._settings.url}/{self._settings.bucket}/{quote(key, safe='-_.~/')}"

    def _call(self, method: str, url: str) -> httpx.Response:
        more: dict[str, Any] = {} if self._auth is None else {"auth": self._auth}
        return self._caller.call(method, url, **more)

    def close(self) -> None:
        """Let go of connections."""
        self._caller.close()


class _Signature(httpx.Auth):
    """AWS Signature Version 4, by botocore; made anew for every try, for it holds the time."""

    def __init__(self, access: str, hidden: str, region: str) -> None:
        try:
            from botocore.auth import S3SigV4Auth
            from botocore.credentials import Credentials
        except ImportError:
            raise AcquireError(
                "Signing for S3 needs a package: pip install 'millesimed[s3]'."
            ) from None
        self._signer = S3SigV4Auth(Credentials(access, hidden), "s3", region)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the headers of the signature."""
        from botocore.awsrequest import AWSRequest

        asked = AWSRequest(method=request.method, url=str(request.url))
        self._signer.add_auth(asked)
        request.headers.update(dict(asked.headers.items()))
        yield request


def _object(node: Xml.Element) -> tuple[str, str, int, datetime]:
    from urllib.parse import unquote_plus

    changed = datetime.fromisoformat(_text(node, "LastModified") or "1970-01-01T00:00:00Z")
    return (
        unquote_plus(_text(node, "Key") or ""),
        _text(node, "ETag") or "",
        int(_text(node, "Size") or 0),
        changed if changed.tzinfo else changed.replace(tzinfo=UTC),
    )


def _text(node: Xml.Element, name: str) -> str | None:
    return next((child.text for child in node if _local(child.tag) == name), None)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
