"""The HTTP API over a real socket; every answer is held against /openapi.json."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import quote, urlsplit

import geopandas as gpd
import numpy as np
import pytest
from openapi_spec_validator import validate
from shapely.geometry import box

from daemon.api import alerts as api_alerts
from daemon.bench.patch import event_of
from daemon.config import Scope
from daemon.problems import MOST_BODY
from schemas.alert import AlertKind, AlertState
from schemas.dead_letter import Origin
from schemas.policy import SENSOR_POLICY, Sensor
from schemas.subscription import Wish
from schemas.territory import TerritoryKind
from tests.map_store import FIRST, building, made_store, patched
from tests.receivers import Receiver
from tests.served import api, known
from updater import outbox
from updater.alerts import Look, follow
from updater.commit import Effect, commit
from updater.crs import WGS84, reproject
from updater.reads import alerts_now
from updater.review import reject_alert
from updater.store import Store
from updater.subscriptions import channel_name, find
from updater.territories import add_territories
from updater.types import Patch, Rules, Sighting

TOWN, AGENT, BOSS = "token-town", "token-agent", "token-boss"
TOKENS = {
    "town": known(Scope.SUBSCRIBE, token=TOWN),
    "agent": known(Scope.REVIEW, token=AGENT),
    "boss": known(Scope.ADMIN, token=BOSS),
}
PLACES = [(x, y) for x in (80, 220, 360, 500) for y in (80, 220, 500)]
FEED = {"name": "Auch", "channel": "feed"}


@pytest.fixture
def map_(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    frame = gpd.GeoDataFrame(
        {"code_insee": ["32013"], "nom": ["Auch"]}, geometry=[box(0, 0, 300, 600)], crs=2154
    )
    frame.to_file(tmp_path / "communes.gpkg")
    add_territories(made, tmp_path / "communes.gpkg", TerritoryKind.COMMUNE)
    yield made
    made.close()


@pytest.fixture
def call(map_):
    with api([map_], TOKENS) as client:
        yield client


@pytest.fixture
def alerts(map_):
    """A dozen alerts of two kinds and two states, in their latest form."""
    patched(map_, 1, [building(x, y, 20 + i, 20) for i, (x, y) in enumerate(PLACES)])
    reject_alert(map_, alerts_now(map_)[0].id, reason="tent")
    return alerts_now(map_)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def subscribed(call, **wish):
    answer = call("POST", "/subscriptions", FEED | wish, token=TOWN)
    assert answer.status == 201, answer.body
    return answer.json


def polygon(*ring):
    return {"type": "Polygon", "coordinates": [list(ring)]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A client with one subscription, for calls that change nothing."""
    made, _ = made_store(tmp_path_factory.mktemp("shared") / "D032.duckdb", seed=9)
    with api([made], TOKENS) as client:
        yield client, subscribed(client)
    made.close()


# subscriptions


def test_a_subscription_is_made_read_changed_and_ended(call, map_, receiver):
    wish = {"name": "Auch", "channel": "webhook", "url": receiver.url, "territories": ["32013"]}
    answer = call("POST", "/subscriptions", wish, token=TOWN)
    assert answer.status == 201
    made, secret = answer.json, answer.json["secret"]
    assert secret == find(map_, made["id"]).secrets[0]
    assert made["departement"] == "D032" and made["active"]
    assert answer.headers["Location"] == f"{call.url}/subscriptions/{made['id']}"
    one = call("GET", f"/subscriptions/{made['id']}", token=TOWN)
    assert one.json == {k: v for k, v in made.items() if k != "secret"}
    listed = call("GET", "/subscriptions", token=TOWN)
    assert listed.json["subscriptions"] == [one.json] and listed.json["total"] == 1
    token = find(map_, made["id"]).token
    for seen in (one, listed):
        assert secret.encode() not in seen.body and token.encode() not in seen.body

    changed = call("PATCH", one_of(made), {"min_area": 500, "territories": []}, token=TOWN)
    assert changed.status == 200 and changed.json["min_area"] == 500
    assert changed.json["territories"] == [] and changed.json["secret"] is None
    kept = find(map_, made["id"])
    assert kept.secrets == [secret] and kept.token == token and kept.url == receiver.url
    assert call("PATCH", one_of(made), {"min_area": None}, token=TOWN).json["min_area"] is None

    for _ in range(2):
        assert call("DELETE", one_of(made), token=TOWN).status == 204
    assert call("GET", one_of(made), token=TOWN).json["active"] is False
    assert call("GET", "/subscriptions", token=TOWN).json["subscriptions"] == []
    assert call("GET", "/subscriptions?ended=true", token=TOWN).json["total"] == 1
    forms = map_.execute("SELECT count(*) FROM subscriptions").fetchone()
    assert forms == (4,)  # made, two changes, one end; ending twice writes once
    assert call("PATCH", one_of(made), {"name": "x"}, token=TOWN).status == 409


def one_of(made, then=""):
    return f"/subscriptions/{made['id']}{then}"


def test_what_becomes_a_webhook_gets_a_key_and_what_is_none_any_more_loses_it(call, map_, receiver):
    made = subscribed(call)
    assert made["secret"] is None
    assert call("PATCH", one_of(made), {"channel": "webhook"}, token=TOWN).status == 422
    part = {"channel": "webhook", "url": receiver.url}
    secret = call("PATCH", one_of(made), part, token=TOWN).json["secret"]
    assert find(map_, made["id"]).secrets == [secret]
    part = {"channel": "feed", "url": None}
    assert call("PATCH", one_of(made), part, token=TOWN).json["url"] is None
    assert find(map_, made["id"]).secrets == []


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"channel": "webhook"}, "needs its url"),
        ({"channel": "webhook", "url": "ftp://a.example"}, "http://"),
        ({"channel": "webhook", "url": "http://10.0.0.1/x"}, "address not allowed"),
        ({"channel": "webhook", "url": "http://[fd00::1]/x"}, "address not allowed"),
        ({"channel": "webhook", "url": "http://a.example:99999/"}, "port"),
        ({"channel": "mail"}, "address"),
        ({"territories": ["99999"]}, "no territory '99999'"),
        ({"min_probability": 2}, "min_probability"),
        ({"colour": "red"}, "colour"),
        ({"id": "SU0123456789ABCDEF0123"}, "id"),
        ({"secrets": ["whsec_eA=="]}, "secrets"),
        ({"name": ""}, "name"),
        ({"polygon": polygon([0, 0], [1, 1], [2, 2], [0, 1])}, "end"),
        ({"polygon": polygon([0, 43], [1, 44], [1, 43], [0, 44], [0, 43])}, "no valid outline"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_in_one_sentence(shared, wish, words):
    call, kept = shared
    answer = call("POST", "/subscriptions", FEED | wish, token=TOWN)
    assert answer.status == 422 and words in answer.json["detail"], answer.body
    assert "\n" not in answer.json["detail"]
    changed = call("PATCH", one_of(kept), wish, token=TOWN)
    assert changed.status == 422 and words in changed.json["detail"]
    listed = call("GET", "/subscriptions", token=TOWN).json["subscriptions"]
    assert listed == [{k: v for k, v in kept.items() if k != "secret"}]


def circle(vertices):
    angles = np.linspace(0, 2 * np.pi, vertices - 1, endpoint=False)
    ring = [[0.3 + 0.1 * np.cos(a), 43.5 + 0.1 * np.sin(a)] for a in angles]
    return polygon(*ring, ring[0])


def test_polygons_and_bodies_have_a_largest_size(call):
    assert subscribed(call, polygon=circle(10_000))["polygon"]
    answer = call("POST", "/subscriptions", FEED | {"polygon": circle(10_001)}, token=TOWN)
    assert answer.status == 422 and "10,000 vertices" in answer.json["detail"]
    wish = json.dumps(FEED).encode()
    padded = wish + b" " * (MOST_BODY - len(wish))
    kind = {"Content_Type": "application/json"}
    assert call("POST", "/subscriptions", padded, token=TOWN, **kind).status == 201
    answer = call("POST", "/subscriptions", padded + b" ", token=TOWN, **kind)
    assert answer.status == 413 and answer.json["status"] == 413
    assert call("POST", "/subscriptions", b"{", token=TOWN, **kind).status == 422
    assert call("POST", "/subscriptions", b"\xff\xfe{", token=TOWN, **kind).status in {400, 422}
    nested = b"[" * 200_000
    assert call("POST", "/subscriptions", nested, token=TOWN, **kind).status in {400, 422}
    infinite = b'{"name": "x", "channel": "feed", "min_area": Infinity}'
    assert call("POST", "/subscriptions", infinite, token=TOWN, **kind).status == 422


def test_a_body_without_a_length_is_counted_too(call):
    connection = http.client.HTTPConnection(urlsplit(call.url).netloc, timeout=20)
    headers = {"Authorization": f"Bearer {TOWN}", "Content-Type": "application/json"}
    chunks = (b" " * 100_000 for _ in range(15))
    connection.request("POST", "/subscriptions", chunks, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413 and json.loads(answer.read())["title"]
    connection.close()


def test_keys_rotate_as_on_the_command_line(call, map_, receiver):
    made = subscribed(call, channel="webhook", url=receiver.url)
    fresh = call("POST", one_of(made, "/rotate"), token=TOWN).json
    assert fresh["keys"] == 2 and fresh["secret"] != made["secret"]
    assert find(map_, made["id"]).secrets == [fresh["secret"], made["secret"]]
    last = call("POST", one_of(made, "/rotate?drop_old=true"), token=TOWN).json
    assert last == {"id": made["id"], "keys": 1, "secret": None}
    assert find(map_, made["id"]).secrets == [fresh["secret"]]
    feed = subscribed(call)
    for verb in ("rotate", "test", "replay"):
        answer = call("POST", one_of(feed, f"/{verb}"), token=TOWN)
        assert answer.status == 409 and "Only a webhook" in answer.json["detail"]


def test_a_test_says_what_the_receiver_said(call, receiver):
    made = subscribed(call, channel="webhook", url=receiver.url)
    assert call("POST", one_of(made, "/test"), token=TOWN).json["answer"] == "taken"
    receiver.answers = [500]
    answer = call("POST", one_of(made, "/test"), token=TOWN)
    assert answer.status == 502 and "status 500" in answer.json["detail"]
    assert [json.loads(body)["data"] for _, _, body in receiver.got] == [{"test": True}] * 2
    call("DELETE", one_of(made), token=TOWN)
    assert call("POST", one_of(made, "/test"), token=TOWN).status == 409
    assert len(receiver.got) == 2


def test_what_was_given_up_is_sent_once_more(call, map_, receiver):
    made = subscribed(call, channel="webhook", url=receiver.url, kinds=list(AlertKind))
    patched(map_, 1, [building(*place) for place in PLACES[:3]])
    rows = outbox.after(map_, 0, type_="fr.millesimed.alert.v1")
    parked = {row.seq: "status 500" for row in rows}
    outbox.advance(map_, channel_name(made["id"]), rows[-1].seq, parked=parked)
    receiver.answers = [200, 500]
    answer = call("POST", one_of(made, "/replay"), token=TOWN)
    assert answer.json == {"id": made["id"], "taken": 1, "parked": len(rows) - 1}
    answer = call("POST", one_of(made, "/replay"), token=TOWN)
    assert answer.json["parked"] == 0
    assert receiver.taken == [r.id for r in rows]


def test_where_several_departements_are_served_one_is_chosen(tmp_path, map_):
    other = Store.create(
        tmp_path / "D065.duckdb", territory="D065", crs="EPSG:2154", millesime=2021
    )
    with api([map_, other], TOKENS) as call:
        answer = call("POST", "/subscriptions", FEED, token=TOWN)
        assert answer.status == 422 and "D032, D065" in answer.json["detail"]
        assert subscribed(call, territories=["32013"])["departement"] == "D032"
        assert subscribed(call, territories=["D065"])["departement"] == "D065"
        answer = call("POST", "/subscriptions?departement=D065", FEED, token=TOWN)
        assert answer.json["departement"] == "D065"
        assert call("POST", "/subscriptions?departement=D031", FEED, token=TOWN).status == 422
        assert call("GET", "/subscriptions", token=TOWN).json["total"] == 3
        assert call("GET", "/subscriptions?departement=D065", token=TOWN).json["total"] == 2
        assert call("GET", one_of(answer.json), token=TOWN).json["departement"] == "D065"
    other.close()


def test_addresses_are_those_the_service_is_known_by(map_):
    with api([map_], TOKENS, public_url="https://ocsge.example/alertes/") as call:
        answer = call("POST", "/subscriptions", FEED, token=TOWN)
        location = f"https://ocsge.example/alertes/subscriptions/{answer.json['id']}"
        assert answer.headers["Location"] == location
        links = call("GET", "/alerts?min_area=3").json["links"]
        assert links["self"] == "https://ocsge.example/alertes/alerts?min_area=3&page=1"


# ending without a login


def test_one_click_ends_a_subscription_and_opening_the_link_does_not(call, map_):
    made = subscribed(call, name="Auch <b>", language="en")
    link = one_of(made, f"/unsubscribe/{find(map_, made['id']).token}")
    page = call("GET", link)
    text = page.body.decode()
    assert page.status == 200 and page.headers.get_content_type() == "text/html"
    assert text.count("<button>") == 1 and 'lang="en"' in text and "Auch &lt;b&gt;" in text
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert find(map_, made["id"]).active
    for method in ("HEAD", "PUT", "DELETE"):
        assert call(method, link).status == 405
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert call("POST", link, b"List-Unsubscribe=No", **form).status == 422
    assert call("POST", link, b"").status == 422
    assert find(map_, made["id"]).active
    for _ in range(2):
        assert call("POST", link, b"List-Unsubscribe=One-Click", **form).status == 200
    assert not find(map_, made["id"]).active
    assert call("GET", link).status == 200


def test_one_click_comes_as_multipart_too_and_in_french(call, map_):
    made = subscribed(call)
    link = one_of(made, f"/unsubscribe/{find(map_, made['id']).token}")
    assert "Me désabonner" in call("GET", link).body.decode()
    body = (
        b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
        b"One-Click\r\n--x--\r\n"
    )
    answer = call("POST", link, body, Content_Type="multipart/form-data; boundary=x")
    assert answer.status == 200 and "C'est fait" in answer.body.decode().replace("&#x27;", "'")
    assert not find(map_, made["id"]).active


def test_a_wrong_link_ends_nothing_and_does_not_say_why(call, map_):
    made = subscribed(call)
    token = find(map_, made["id"]).token
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    wrong = [
        one_of(made, f"/unsubscribe/{token[:-1]}"),
        one_of(made, f"/unsubscribe/{token}x"),
        one_of(made, f"/unsubscribe/{quote('é')}"),
        f"/subscriptions/SU{20 * '0'}/unsubscribe/{token}",
    ]
    answers = [call("POST", path, b"List-Unsubscribe=One-Click", **form) for path in wrong]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert find(map_, made["id"]).active


# alerts


def ids(answer):
    assert answer.status == 200, answer.body
    return [alert["id"] for alert in answer.json["alerts"]]


def test_alerts_come_by_rank_and_page_by_page(call, alerts, monkeypatch):
    whole = call("GET", "/alerts").json
    ranks = [alert["rank"] for alert in whole["alerts"]]
    assert whole["total"] == len(alerts) == len(ranks) > 5
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) > 5
    monkeypatch.setattr(api_alerts, "PAGE", 4)
    names, path = [], "/alerts?min_area=1&state=confirmed&state=rejected"
    while path:
        page = call("GET", path)
        names += ids(page)
        assert len(ids(page)) <= 4
        following = page.json["links"]["next"]
        path = following and following.removeprefix(call.url)
    assert names == [alert["id"] for alert in whole["alerts"]]
    assert ids(call("GET", "/alerts?page=99")) == []
    assert call("GET", "/alerts?page=0").status == 422


def test_each_filter_takes_what_it_says(call, alerts):
    def expected(test):
        return {record.id for record in alerts if test(record)}

    def found(query):
        return set(ids(call("GET", f"/alerts?{query}")))

    rejected = expected(lambda r: r.state is AlertState.REJECTED)
    assert found("state=rejected") == rejected and len(rejected) == 1
    for kind in AlertKind:
        assert found(f"kind={kind}") == expected(lambda r, k=kind: k in r.kinds)
    middle = sorted(r.geometry.area for r in alerts)[len(alerts) // 2]
    assert found(f"min_area={middle}") == expected(lambda r: r.geometry.area >= middle)
    assert 0 < len(found(f"min_area={middle}")) < len(alerts)
    assert found("min_probability=0.5") == expected(lambda r: r.probability >= 0.5)
    assert found("min_probability=1") == expected(lambda r: r.probability >= 1)
    assert found("departement=D032") == expected(lambda r: True)
    assert call("GET", "/alerts?departement=D099").status == 422
    last = max(r.known_at for r in alerts)
    assert found(f"since={quote(last.isoformat())}") == expected(lambda r: r.known_at >= last)
    assert found(f"since={quote((last + timedelta(seconds=1)).isoformat())}") == set()


def test_a_box_in_degrees_takes_what_it_touches(call, alerts, map_):
    ground = box(60, 60, 240, 240)
    west, south, east, north = reproject(ground, map_.crs, WGS84).bounds
    frame = reproject(box(west, south, east, north), WGS84, map_.crs)
    expected = {r.id for r in alerts if r.geometry.intersects(frame)}
    answer = call("GET", f"/alerts?bbox={west},{south},{east},{north}")
    assert set(ids(answer)) == expected and 0 < len(expected) < len(alerts)
    assert len(ids(call("GET", "/alerts?bbox=-180,-90,180,90"))) == len(alerts)
    assert ids(call("GET", "/alerts?bbox=100,0,101,1")) == []
    for bad in ("1,2,3", "a,b,c,d", "3,0,1,1", "0,0,1,91", "nan,0,1,1", "0,0,inf,1"):
        answer = call("GET", f"/alerts?bbox={bad}")
        assert answer.status == 422 and "bbox" in answer.json["detail"]


def test_an_alert_tells_its_history_and_is_rejected_once(call, alerts, map_):
    first = next(r for r in alerts if r.state is AlertState.CONFIRMED)
    path = f"/alerts/{first.id}"
    assert [s["state"] for s in call("GET", path).json["history"]] == ["confirmed"]
    assert call("POST", f"{path}/reject", {"reason": "x"}).status == 401
    assert call("POST", f"{path}/reject", {"reason": "x"}, token=TOWN).status == 403
    assert call("POST", f"{path}/reject", {"reason": ""}, token=AGENT).status == 422
    for reason in ("temporary tent", "again"):
        answer = call("POST", f"{path}/reject", {"reason": reason}, token=AGENT)
        assert answer.json["state"] == "rejected" and answer.json["reason"] == "temporary tent"
    story = call("GET", path).json
    assert story["alert"] == answer.json
    assert [(s["sequence"], s["state"], s["reason"]) for s in story["history"]] == [
        (1, "confirmed", None),
        (2, "rejected", "temporary tent"),
    ]
    sent = outbox.after(map_, 0, type_="fr.millesimed.alert.v1", limit=1_000)
    assert [row.id for row in sent].count(f"{first.id}.2") == 1
    for path in ("/alerts/AL0", "/alerts/AL0/reject"):
        method, body = ("POST", {"reason": "x"}) if "reject" in path else ("GET", None)
        assert call(method, path, body, token=BOSS).status == 404


def test_a_rejection_while_an_image_is_judged_holds(map_):
    """A person rejects between the look-up of alerts and the commit of an event."""
    patched(map_, 1, [building(*PLACES[0])])
    (record,) = alerts_now(map_)
    event = event_of(2, box(0.1, 43.1, 0.2, 43.2))
    rules = Rules(
        event=event.key,
        acquired=FIRST,
        sensor=Sensor.PVA,
        policy=SENSOR_POLICY[Sensor.PVA],
        detector="test/1",
        gsd=0.2,
    )
    origin = Origin(source="kafka", topic="t", partition=0, offset=2, path=None)
    look = Look("later", Sensor.PVA, FIRST, FIRST, "test/1", None)
    sighting = Sighting(record.before, record.after, 0.9, 0.8, ("P",), record.geometry)
    (again,) = follow([record], [sighting], look)
    assert again.after.sequence == 2
    reject_alert(map_, record.id, reason="tent")
    commit(map_, Effect(event, rules, Patch(), [again], None, origin))
    (latest,) = alerts_now(map_)
    assert latest.state is AlertState.REJECTED and latest.sequence == 2
    sent = outbox.after(map_, 0, type_="fr.millesimed.alert.v1")
    assert [row.id for row in sent] == [f"{record.id}.1", f"{record.id}.2"]


# all of it


def test_threads_that_write_and_read_at_once_lose_nothing(map_, alerts):
    count, each = 8, 6
    tokens = {f"t{i}": known(Scope.SUBSCRIBE, token=f"token-{i}") for i in range(count)}
    with api([map_], tokens) as call:

        def work(number):
            token, kept = f"token-{number}", []
            for turn in range(each):
                wish = FEED | {"name": f"{number}/{turn}"}
                made = call("POST", "/subscriptions", wish, token=token)
                assert made.status == 201, made.body
                path = one_of(made.json)
                part = {"min_area": 100 * turn}
                assert call("PATCH", path, part, token=token).status == 200
                page = call("GET", "/alerts", token=token)
                assert len(ids(page)) == len(alerts)
                if turn % 2:
                    assert call("DELETE", path, token=token).status == 204
                else:
                    kept.append(made.json["id"])
            return kept

        def judge():
            for record in alerts[1:]:
                reject_alert(map_, record.id, reason="busy")

        with ThreadPoolExecutor(count + 1) as pool:
            judged = pool.submit(judge)
            kept = list(pool.map(work, range(count)))
            judged.result()
        for number, mine in enumerate(kept):
            listed = call("GET", "/subscriptions", token=f"token-{number}").json
            assert sorted(mine) == [s["id"] for s in listed["subscriptions"]]
            assert len(mine) == each / 2
            ended = call("GET", "/subscriptions?ended=true", token=f"token-{number}").json
            assert ended["total"] == each
    assert {r.state for r in alerts_now(map_)} == {AlertState.REJECTED}


def test_one_subscription_changed_by_many_keeps_every_change(map_):
    fields = ["name", "min_area", "min_probability", "language", "states", "kinds"]
    values = ["many", 7.0, 0.25, "en", ["first"], ["other"]]
    tokens = {"t": known(Scope.SUBSCRIBE, token=TOWN)}
    with api([map_], tokens) as call:
        made = subscribed(call)

        def set_(pair):
            return call("PATCH", one_of(made), dict([pair]), token=TOWN).status

        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(set_, zip(fields, values, strict=True))) == {200}
        found = call("GET", one_of(made), token=TOWN).json
        assert [found[field] for field in fields] == values


def test_the_description_is_openapi_and_names_what_there_is(call):
    connection = http.client.HTTPConnection(urlsplit(call.url).netloc, timeout=10)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    connection.close()
    validate(document)
    assert document == json.loads(json.dumps(call.described))
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/subscriptions") and "unsubscribe" not in path:
                assert operation["security"] == [{"bearer": []}], (path, method)
                assert {"401", "403"} <= set(operation["responses"])
            assert "HTTPValidationError" not in json.dumps(operation)
    part = document["components"]["schemas"]["WishPart"]
    assert set(part["properties"]) == set(Wish.model_fields) and "required" not in part


def test_every_way_to_be_wrong_is_a_problem(call):
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("PUT", "/alerts", 405),
        ("GET", "/feed/alerts-D099.atom", 404),
        ("GET", "/alerts?state=lost", 422),
        ("GET", "/alerts?since=yesterday", 422),
    ]:
        answer = call(method, path)
        assert answer.status == status == answer.json["status"]
        assert answer.headers.get_content_type() == "application/problem+json"
        assert answer.json["detail"].endswith(".") and answer.json["title"]
