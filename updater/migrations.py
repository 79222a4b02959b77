"""The store's schema, as numbered steps. A new file runs all of them, an older one the rest.

Two facts make the history: a row in ``polygons`` says a version exists on the ground from
``valid_from``, known since ``recorded``; a row in ``retirements`` says it no longer holds from
``valid_to``, known since its own ``recorded``. Neither table is ever updated or deleted from, so
any past state on either axis is a query (``map_as_of``).
"""

from __future__ import annotations

from typing import Final

V1: Final = """
CREATE SEQUENCE version_seq;
CREATE SEQUENCE outbox_seq;
CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE polygons (
    version BIGINT NOT NULL,
    id VARCHAR NOT NULL,
    code_cs VARCHAR,
    code_us VARCHAR,
    millesime SMALLINT NOT NULL,
    source VARCHAR NOT NULL,
    ossature BOOLEAN NOT NULL,
    id_origine VARCHAR NOT NULL,
    code_or VARCHAR NOT NULL,
    geom GEOMETRY NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    event VARCHAR
);
CREATE TABLE retirements (
    version BIGINT PRIMARY KEY,
    valid_to TIMESTAMPTZ NOT NULL,
    kind VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    event VARCHAR NOT NULL
);
CREATE TABLE lineage (
    parent VARCHAR NOT NULL,
    child VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    detector VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
CREATE TABLE zone_construite (geom GEOMETRY NOT NULL);
CREATE TABLE images (
    item VARCHAR PRIMARY KEY,
    path VARCHAR NOT NULL,
    sensor VARCHAR NOT NULL,
    acquired TIMESTAMPTZ NOT NULL,
    gsd DOUBLE NOT NULL,
    footprint GEOMETRY NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
CREATE TABLE events (
    key VARCHAR PRIMARY KEY,
    id VARCHAR NOT NULL,
    item VARCHAR NOT NULL,
    acquired TIMESTAMPTZ NOT NULL,
    sensor VARCHAR NOT NULL,
    detector VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    changed INTEGER NOT NULL,
    ignored VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
CREATE TABLE offsets (
    topic VARCHAR NOT NULL,
    partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);
CREATE TABLE alerts (
    id VARCHAR NOT NULL,
    sequence INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    record VARCHAR NOT NULL,
    geom GEOMETRY NOT NULL,
    event VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (id, sequence)
);
CREATE TABLE outbox (
    seq BIGINT PRIMARY KEY,
    id VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    topic VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    body VARCHAR NOT NULL,
    created TIMESTAMPTZ NOT NULL
);
CREATE TABLE deliveries (
    channel VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    delivered TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (channel, seq)
);
CREATE TABLE dead_letters (
    id VARCHAR PRIMARY KEY,
    event VARCHAR,
    reason VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    letter VARCHAR NOT NULL,
    received TIMESTAMPTZ NOT NULL
);
CREATE MACRO map_as_of(valid_at, recorded_at) AS TABLE
    SELECT p.* FROM polygons p
    ANTI JOIN (
        SELECT version FROM retirements r
        WHERE r.recorded <= recorded_at AND r.valid_to <= valid_at
    ) gone ON p.version = gone.version
    WHERE p.recorded <= recorded_at AND p.valid_from <= valid_at;
CREATE VIEW map_now AS
    SELECT p.* FROM polygons p ANTI JOIN retirements r ON p.version = r.version;
CREATE VIEW alerts_now AS
    SELECT * FROM alerts QUALIFY row_number() OVER (PARTITION BY id ORDER BY sequence DESC) = 1;
"""

V2: Final = """
CREATE TABLE territories (
    kind VARCHAR NOT NULL,
    code VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    geom GEOMETRY NOT NULL,
    PRIMARY KEY (kind, code)
);
CREATE TABLE retirements_again (
    version BIGINT NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    kind VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    event VARCHAR NOT NULL,
    PRIMARY KEY (version, event)
);
INSERT INTO retirements_again SELECT * FROM retirements;
DROP TABLE retirements;
ALTER TABLE retirements_again RENAME TO retirements;
ALTER TABLE images ADD COLUMN elevation VARCHAR;
CREATE TABLE legal (
    version BIGINT NOT NULL,
    artif BOOLEAN NOT NULL,
    crit_seuil BOOLEAN NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
CREATE TABLE subscriptions (
    id VARCHAR NOT NULL,
    sequence INTEGER NOT NULL,
    document VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (id, sequence)
);
CREATE VIEW subscriptions_now AS
    SELECT * FROM subscriptions
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY sequence DESC) = 1;
CREATE TABLE positions (channel VARCHAR PRIMARY KEY, seq BIGINT NOT NULL);
CREATE TABLE parked (
    channel VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    reason VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (channel, seq)
);
CREATE VIEW legal_now AS
    SELECT * FROM legal QUALIFY row_number() OVER (PARTITION BY version ORDER BY recorded DESC) = 1;
"""
"""Territories; surface models of images; subscriptions, how far each was told, what was given up;
legal statuses as last judged; and a version may be retired twice, the second time from earlier on
(an event whose successor was undone first)."""

V3: Final = """
CREATE TABLE series (
    block VARCHAR PRIMARY KEY,
    file VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
"""
"""Which file holds the Sentinel-2 history of a block."""

V4: Final = """
INSERT OR IGNORE INTO positions SELECT channel, max(seq) FROM (
    SELECT channel, seq FROM deliveries UNION ALL SELECT channel, seq FROM parked
) GROUP BY channel;
CREATE TABLE passed_over (
    channel VARCHAR NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (channel, seq)
);
INSERT INTO passed_over
    SELECT p.channel, o.seq
    FROM (SELECT * FROM positions WHERE channel IN (SELECT channel FROM deliveries)) p
    JOIN outbox o ON o.seq <= p.seq
    ANTI JOIN (SELECT channel, seq FROM deliveries UNION ALL SELECT channel, seq FROM parked) had
    ON had.channel = p.channel AND had.seq = o.seq;
DROP TABLE deliveries;
CREATE TABLE retries (
    letter VARCHAR PRIMARY KEY,
    destination VARCHAR NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
"""
"""Every channel keeps a position, and what it passed over, instead of a row for each message it
had; dead letters that were given another chance."""

V5: Final = """
CREATE TABLE asked (
    seq BIGINT NOT NULL,
    event VARCHAR NOT NULL,
    payload BLOB NOT NULL,
    headers VARCHAR NOT NULL,
    origin VARCHAR NOT NULL,
    sent TIMESTAMPTZ,
    since TIMESTAMPTZ NOT NULL,
    acquired TIMESTAMPTZ NOT NULL,
    footprint BLOB NOT NULL,
    west DOUBLE NOT NULL,
    south DOUBLE NOT NULL,
    east DOUBLE NOT NULL,
    north DOUBLE NOT NULL,
    task VARCHAR,
    offered TIMESTAMPTZ,
    judgement VARCHAR
);
"""
"""Acquisitions that detect workers are to judge, in the order they came. A row is written with the
offset its event was read at and goes in the transaction of its effect; ``task`` is null while it
waits for an earlier one of the same ground, and in the rows of an event that came again."""

V6: Final = """
CREATE TABLE corrections (
    id VARCHAR PRIMARY KEY,
    event VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    code_cs VARCHAR NOT NULL,
    code_us VARCHAR NOT NULL,
    observed TIMESTAMPTZ NOT NULL,
    author VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    comment VARCHAR,
    alert VARCHAR,
    outcome VARCHAR NOT NULL,
    geom GEOMETRY NOT NULL,
    west DOUBLE NOT NULL,
    south DOUBLE NOT NULL,
    east DOUBLE NOT NULL,
    north DOUBLE NOT NULL,
    recorded TIMESTAMPTZ NOT NULL
);
"""
"""Ground that people drew, and what came of each piece: who says so, from what, as of when. Later
images may not overwrite it without evidence."""

MIGRATIONS: Final[tuple[str, ...]] = (V1, V2, V3, V4, V5, V6)
"""Step n brings a store from schema n to n + 1."""

SCHEMA_VERSION: Final = len(MIGRATIONS)

INDEXES: Final = {
    "polygons_rtree": "polygons USING RTREE (geom)",
    "images_rtree": "images USING RTREE (footprint)",
    "alerts_rtree": "alerts USING RTREE (geom)",
}
"""R-trees: what an event looks up by place, however much there is elsewhere."""
DROP_INDEX: Final = "; ".join(f"DROP INDEX IF EXISTS {name}" for name in INDEXES)
CREATE_INDEX: Final = "; ".join(f"CREATE INDEX {name} ON {on}" for name, on in INDEXES.items())
LATEST: Final = """
SELECT greatest(
    (SELECT max(recorded) FROM polygons), (SELECT max(recorded) FROM retirements),
    (SELECT max(recorded) FROM events), (SELECT max(recorded) FROM alerts),
    (SELECT max(created) FROM outbox), (SELECT max(received) FROM dead_letters)
)
"""
"""The last instant on record."""
