"""The download service: feeds, paging, 429, MD5, volumes, graphs; over a real socket."""

from datetime import UTC, date, datetime, timedelta
from xml.sax.saxutils import escape, quoteattr

import pytest

from daemon.acquire.settings import GeoplateformeSource
from tests.acquiring import image_of, inbox, look, state
from tests.ortho import LEFT, graph, ground, md5, sevenzipped, tile, tile_name, volumes, zipped
from tests.sites import Held, Reply, site

NOW = datetime(2024, 7, 1, 6, tzinfo=UTC)
GPF = "https://data.geopf.fr/annexes/ressources/xsd/gpf_dl.xsd"
ROOT = "/telechargement"
ORTHO = "BDORTHO_2-0_RVB-0M20_JP2-E080_LAMB93_D032_2022-01-01"
INFRARED = "BDORTHO_2-0_IRC-0M20_JP2-E080_LAMB93_D032_2022-01-01"
GRAPH = "BDORTHO_2-0_GRAPHE-MOSAIQUAGE__LAMB93_D032_2022-01-01"
OLD_GRAPH = "BDORTHO_2-0_GRAPHE-MOSAIQUAGE__LAMB93_D032_2019-01-01"


class Service:
    """The feeds as the real service writes them, pages and filters included."""

    def __init__(self, site):
        self.site, self.page = site, 50
        self.deliveries, self.files, self.updated = {}, {}, "2024-06-01"
        self.limited = 0
        site.on(f"{ROOT}/capabilities", self.capabilities)
        site.on(f"{ROOT}/resource/BDORTHO", self.listing)

    def feed(self, request, entries):
        limit = min(self.page, int(request.query.get("limit", 10)))
        page = int(request.query.get("page", 1))
        pages = max(1, -(-len(entries) // limit))
        if self.limited:
            self.limited -= 1
            return Reply(429, b"", {"Retry-After": "0"})
        shown = "".join(entries[(page - 1) * limit : page * limit])
        body = f"""<?xml version='1.0' encoding='UTF-8' standalone='yes'?>
<feed xmlns:georss="http://www.georss.org/georss" xmlns:gpf_dl="{GPF}"
 xmlns="http://www.w3.org/2005/Atom" xml:lang="fr" gpf_dl:page="{page}" gpf_dl:pagesize="{limit}"
 gpf_dl:pagecount="{pages}" gpf_dl:totalentries="{len(entries)}"><title>BD ORTHO®</title>
{shown}</feed>"""
        return Reply(200, body.encode(), {"Content-Type": "application/atom+xml"})

    def capabilities(self, request):
        since = request.query.get("updatedFrom", "")
        names = ["ADMIN-EXPRESS", *(["BDORTHO"] if self.updated >= since else [])]
        links = [f"{self.site.url}{ROOT}/resource/{name}" for name in names]
        return self.feed(
            request,
            [
                f"<entry><title>{n}</title><link href={quoteattr(h)}/></entry>"
                for n, h in zip(names, links, strict=True)
            ],
        )

    def listing(self, request):
        zone = request.query.get("zone")
        entries = []
        for name, (where, edition, updated) in self.deliveries.items():
            if zone in {None, where}:
                href = f"{self.site.url}{ROOT}/resource/BDORTHO/{name}"
                entries.append(
                    f"<entry><title>{escape(name)}</title><id>{href}</id><updated>{updated}</updated>"
                    f'<link href={quoteattr(href)} rel="alternate" type="application/atom+xml"/>'
                    f'<gpf_dl:zone term="{where}" label="{where} Gers"/>'
                    f"<gpf_dl:editionDate>{edition}</gpf_dl:editionDate></entry>"
                )
        return self.feed(request, entries)

    def add(self, name, paths, *, sums="content", zone="D032", updated="2024-06-01T10:00:00Z"):
        """A delivery; ``sums``: where the MD5 stands, in ``content``, a ``file``, or ``wrong``."""
        edition = name[-10:]
        self.deliveries[name] = (zone, edition, updated)
        files = {path.name: path.read_bytes() for path in paths}
        listed = "".join(f"{md5(path)}  {path.name}\n" for path in paths)
        if sums == "file":
            files[f"{name}.md5"] = listed.encode()
        entries = []
        for file, body in files.items():
            url = f"{ROOT}/download/BDORTHO/{name}/{file}"
            self.site.on(url, Held(body))
            digest = md5(paths[0]) if sums == "wrong" else None
            if sums == "content":
                digest = next(md5(path) for path in paths if path.name == file)
            elif sums == "wrong":
                digest = "0" * 32
            content = f"<content>{digest}</content>" if digest else ""
            entries.append(
                f"<entry><title>{file}</title><id>{self.site.url}{url}</id>"
                f'<link href="{self.site.url}{url}" rel="section" '
                f'type="application/octet-stream" gpf_dl:length="{len(body)}"/>{content}</entry>'
            )
        self.site.on(f"{ROOT}/resource/BDORTHO/{name}", lambda r: self.feed(r, entries))


@pytest.fixture
def service():
    with site() as found:
        yield Service(found)


def source(service, **more):
    values = {
        "name": "geopf",
        "kind": "geoplateforme",
        "url": service.site.url + ROOT,
        "zones": ["D032"],
        "since": date(2024, 5, 1),
        "calls_per_second": 100,
    }
    return GeoplateformeSource(**{**values, **more})


def ortho(folder, *, seed=1, tiles=1, packed=sevenzipped, name=ORTHO):
    made = folder / f"made-{name}-{seed}"
    for number in range(tiles):
        tile(made, LEFT + number, seed=seed, jp2=True)
    return packed(made, folder / f"{name}.{'zip' if packed is zipped else '7z'}")


def dated(service, folder, day="2021-08-30", *, name=GRAPH, tiles=2):
    made = folder / f"graph-{name}"
    graph(made, [(ground(LEFT + n), day) for n in range(tiles)])
    service.add(name, [sevenzipped(made, folder / f"{name}.7z")])


def downloads(service):
    return [c.path.rsplit("/", 1)[-1] for c in service.site.calls if "/download/" in c.path]


def test_a_delivery_in_volumes_is_fetched_checked_unpacked_and_dated_by_its_graph(
    service, tmp_path
):
    parts = volumes(ortho(tmp_path, tiles=2), 3_000)
    assert len(parts) > 2
    service.add(ORTHO, parts, sums="file")
    service.add(INFRARED, [ortho(tmp_path, name=INFRARED)])
    dated(service, tmp_path)
    dated(service, tmp_path, "2018-07-01", name=OLD_GRAPH)
    tally = look(tmp_path, source(service), now=NOW)
    assert tally.error is None and tally.failed == 0 and len(tally.events) == 2
    items = inbox(tmp_path)
    assert {item.acquired.date() for item in items.values()} == {date(2021, 8, 30)}  # not 2022
    assert {image_of(i).name for i in items.values()} == {
        tile_name(LEFT + n, suffix=".jp2") for n in range(2)
    }
    assert not any(name.startswith(INFRARED) for name in downloads(service))
    kept = [p.name for p in (tmp_path / "acquired" / "geopf").rglob("*") if p.is_file()]
    assert not any(".7z" in name for name in kept)
    assert look(tmp_path, source(service), now=NOW).events == []


def test_every_page_of_every_feed_is_read_and_429_is_waited_out(service, tmp_path):
    service.page, service.limited = 1, 3
    service.add(ORTHO, [ortho(tmp_path, packed=zipped)])
    dated(service, tmp_path)
    service.deliveries |= {f"BDORTHO_X_{n}": ("D032", "2001-01-01", "2001-01-01") for n in range(3)}
    tally = look(tmp_path, source(service), now=NOW)
    assert len(tally.events) == 1 and tally.error is None and service.limited == 0


def test_updated_from_spares_the_listing_until_something_happened(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)])
    dated(service, tmp_path)
    look(tmp_path, source(service), now=NOW)
    listings = len(service.site.asked(f"{ROOT}/resource/BDORTHO"))
    later = NOW + timedelta(days=2)
    look(tmp_path, source(service), now=later)
    assert len(service.site.asked(f"{ROOT}/resource/BDORTHO")) == listings
    asked = service.site.asked(f"{ROOT}/capabilities")[-1].query
    assert asked["updatedFrom"] == "2024-06-30"
    # corrected by IGN: the same delivery, another image
    service.updated = "2024-07-03"
    service.add(ORTHO, [ortho(tmp_path, seed=2)], updated="2024-07-03T10:00:00Z")
    (event,) = look(tmp_path, source(service), now=later + timedelta(days=1)).events
    assert event in inbox(tmp_path) and len(inbox(tmp_path)) == 2
    # and were updatedFrom not to be trusted, the listing is read once a week all the same
    service.updated = "2024-01-01"
    service.add(ORTHO, [ortho(tmp_path, seed=3)], updated="2024-07-04T10:00:00Z")
    assert look(tmp_path, source(service), now=later + timedelta(days=2)).events == []
    assert len(look(tmp_path, source(service), now=later + timedelta(days=9)).events) == 1


def test_only_what_was_published_since_is_fetched(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)])
    dated(service, tmp_path)
    tally = look(tmp_path, source(service, since=None), now=NOW)  # begins today
    assert tally.events == [] and downloads(service) == []
    service.updated = "2024-07-02"
    service.add(ORTHO, [ortho(tmp_path, seed=2)], updated="2024-07-02T10:00:00Z")
    tomorrow = NOW + timedelta(days=1)
    assert len(look(tmp_path, source(service, since=None), now=tomorrow).events) == 1


def test_other_departements_are_left_alone(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)], zone="D031")
    assert look(tmp_path, source(service), now=NOW).events == []


def test_a_delivery_whose_bytes_are_wrong_is_owed(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)], sums="wrong")
    dated(service, tmp_path)
    tally = look(tmp_path, source(service), now=NOW)
    assert (tally.events, tally.owed, tally.error) == ([], 1, None)
    assert downloads(service).count(f"{ORTHO}.7z") == 2
    (debt,) = state(tmp_path, source(service)).owed.values()
    assert "checksum" in debt.why


def test_a_delivery_without_its_graph_waits_for_it(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)])
    dated(service, tmp_path, "2018-07-01", name=OLD_GRAPH)
    assert look(tmp_path, source(service), now=NOW).owed == 1
    dated(service, tmp_path)
    tally = look(tmp_path, source(service), now=NOW + timedelta(hours=1))
    assert len(tally.events) == 1 and tally.owed == 0
    assert downloads(service).count(f"{ORTHO}.7z") == 1  # it was kept


def test_a_service_that_is_down_is_asked_again_from_where_it_stopped(service, tmp_path):
    service.add(ORTHO, [ortho(tmp_path)])
    dated(service, tmp_path)
    service.site.down()
    tally = look(tmp_path, source(service), now=NOW)
    assert tally.error is not None and tally.events == []
    service.site.up()
    assert len(look(tmp_path, source(service), now=NOW).events) == 1


def test_what_is_no_feed_says_so(service, tmp_path):
    service.site.on(f"{ROOT}/resource/BDORTHO", Reply(200, b"<html></html>"))
    assert "no Atom feed" in look(tmp_path, source(service), now=NOW).error
