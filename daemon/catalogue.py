"""The catalogue of metrics: names, kinds, units, labels and meaning, as data.

Conventions: prefix, base units, ``_total``, no label whose values have no bound. What is known
beforehand of a label's values begins at 0, so that a rate has something to start from.
``docs/metrics.md`` is made from it (``python -m daemon.metrics_doc``).
"""

from __future__ import annotations

from typing import Final

from daemon import __version__
from daemon.families import (
    ACQUIRE_KINDS,
    ALERT_BUCKETS,
    CHANNELS,
    CHECKPOINT_BUCKETS,
    CONFIDENCE_BUCKETS,
    CORRECTION_OUTCOMES,
    DEAD_LETTER_REASONS,
    DETECTORS,
    EXPORT_BUCKETS,
    EXPORT_OUTCOMES,
    EXPORT_PRODUCTS,
    EXPORT_STATES,
    IGNORED_REASONS,
    KAFKA_CLIENTS,
    KINDS,
    LATENCY_BUCKETS,
    OUTCOMES,
    PUBLICATION_STATES,
    RESIDUAL_BUCKETS,
    STAGE_BUCKETS,
    STAGES,
    STATES,
    SUBSCRIBER_CHANNELS,
    Family,
    counter,
    gauge,
    histogram,
)

_DEPARTEMENT = "stores of the service"
_CHANNEL = "folder; kafka where configured"
_KAFKA_CODE = "names librdkafka gives its errors"
_PARTITION = "partitions of the topic, after its name where two are read; `inbox` for a folder"
_COVER = "the 14 covers of the nomenclature, and `none`; transitions that occurred"
_JUDGED = "detectors that judged a scene"
_SOURCE: Final[dict[str, tuple[str, ...] | str]] = {
    "kind": ACQUIRE_KINDS,
    "source": "`[[acquire]]` tables of the configuration",
}
_GPU = "devices of the machine"

CATALOGUE: Final[dict[str, Family]] = {
    # the way in
    "events": counter(
        "millesimed_events_total",
        "events",
        "Acquisition events by outcome; between the roles also what was asked for and judged.",
        {"outcome": OUTCOMES},
    ),
    "last_event": gauge(
        "millesimed_last_event_timestamp_seconds",
        "seconds since 1970",
        "When an event was last taken in; without any, when the service began to look.",
    ),
    "dead_letters": counter(
        "millesimed_dead_letters_total",
        "events",
        "Dead letters by reason.",
        {"reason": DEAD_LETTER_REASONS},
    ),
    "source_lag": gauge(
        "millesimed_source_lag",
        "events",
        "Events that wait in the source, by partition; the one in hand counts.",
        {"partition": _PARTITION},
    ),
    "source_waiting": gauge(
        "millesimed_source_waiting_seconds",
        "seconds",
        "How long the oldest event without effect has waited since it was sent; 0 when none waits.",
    ),
    "asked": gauge(
        "millesimed_asked_events",
        "events",
        "Acquisitions an update process has asked for, or holds back, and that are not judged.",
    ),
    "asked_waiting": gauge(
        "millesimed_asked_waiting_seconds",
        "seconds",
        "How long the oldest of them has waited; 0 when none does.",
    ),
    "kafka_errors": counter(
        "millesimed_kafka_errors_total",
        "errors",
        "What the Kafka clients complained of; a broker that is away rises several times a minute.",
        {"client": KAFKA_CLIENTS, "code": _KAFKA_CODE},
    ),
    # where images come from
    "acquired_images": counter(
        "millesimed_acquired_images_total", "images", "Images fetched and announced.", _SOURCE
    ),
    "acquired_bytes": counter(
        "millesimed_acquired_bytes_total", "bytes", "Bytes downloaded.", _SOURCE
    ),
    "acquire_failures": counter(
        "millesimed_acquire_failures_total",
        "failures",
        "Images that could not be fetched, and looks at a source that failed as a whole.",
        _SOURCE,
    ),
    "acquire_success": gauge(
        "millesimed_acquire_success_timestamp_seconds",
        "seconds since 1970",
        "When a source was last looked at to the end.",
        _SOURCE,
    ),
    "acquire_owed": gauge(
        "millesimed_acquire_owed",
        "images",
        "Images or deliveries that could not be fetched yet and are tried again.",
        _SOURCE,
    ),
    # stages
    "stage_started": counter(
        "millesimed_stage_started_total",
        "events",
        "Events that went into a stage (batches of messages for publish).",
        {"stage": STAGES},
    ),
    "stage_in_progress": gauge(
        "millesimed_stage_in_progress", "events", "Events in a stage now.", {"stage": STAGES}
    ),
    "stage_finished": counter(
        "millesimed_stage_finished_total",
        "events",
        "Events that came out of a stage.",
        {"stage": STAGES},
    ),
    "stage_failures": counter(
        "millesimed_stage_failures_total",
        "events",
        "Events that failed in a stage.",
        {"stage": STAGES},
    ),
    "stage_seconds": histogram(
        "millesimed_stage_seconds",
        "seconds",
        "Time an event spends in a stage.",
        STAGE_BUCKETS,
        {"stage": STAGES},
    ),
    "newest_acquisition": gauge(
        "millesimed_newest_acquisition_timestamp_seconds",
        "seconds since 1970",
        "Acquisition time of the newest image a stage has finished, over restarts.",
        {"stage": STAGES},
    ),
    "loop": gauge(
        "millesimed_loop_timestamp_seconds", "seconds since 1970", "When the main loop last turned."
    ),
    # latency
    "acquisition_to_patch": histogram(
        "millesimed_acquisition_to_patch_seconds",
        "seconds",
        "From the acquisition to its patch in the map.",
        LATENCY_BUCKETS,
    ),
    "event_to_alert": histogram(
        "millesimed_event_to_alert_seconds",
        "seconds",
        "From the sending of an event to the publication of its alerts, events since the start.",
        ALERT_BUCKETS,
        {"channel": CHANNELS},
    ),
    "event_to_publish": histogram(
        "millesimed_event_to_publish_seconds",
        "seconds",
        "From the commit of an event to the publication of its messages.",
        STAGE_BUCKETS,
    ),
    # the way out
    "outbox_depth": gauge(
        "millesimed_outbox_depth",
        "messages",
        "Messages a channel still lacks.",
        {"channel": _CHANNEL},
    ),
    "outbox_age": gauge(
        "millesimed_outbox_age_seconds",
        "seconds",
        "Age of the oldest message a channel lacks.",
        {"channel": _CHANNEL},
    ),
    "published": counter(
        "millesimed_published_total",
        "messages",
        "Messages published by channel.",
        {"channel": CHANNELS},
    ),
    "delivered": counter(
        "millesimed_delivered_total",
        "alerts",
        "Alerts subscribers took, by kind of channel.",
        {"channel": SUBSCRIBER_CHANNELS},
    ),
    "subscription_backlog": gauge(
        "millesimed_subscription_backlog",
        "alerts",
        "Alerts that are due and that subscriptions of a kind have not gone through.",
        {"channel": SUBSCRIBER_CHANNELS},
    ),
    "subscription_waiting": gauge(
        "millesimed_subscription_waiting_seconds",
        "seconds",
        "How long the oldest of them has been due.",
        {"channel": SUBSCRIBER_CHANNELS},
    ),
    "parked": gauge(
        "millesimed_parked_messages",
        "alerts",
        "Alerts given up after three days, and messages Kafka refuses for good.",
        {"channel": (*SUBSCRIBER_CHANNELS, "kafka")},
    ),
    # the map
    "map_timestamp": gauge(
        "millesimed_map_timestamp_seconds",
        "seconds since 1970",
        "Newest acquisition the map of a département has taken in.",
        {"departement": _DEPARTEMENT},
    ),
    "map_area": gauge(
        "millesimed_map_area_square_meters",
        "square metres",
        "Ground the map of a département covers.",
        {"departement": _DEPARTEMENT},
    ),
    "covered": gauge(
        "millesimed_millesime_covered_ratio",
        "ratio",
        "Share of a map's ground that imagery of a millésime has looked at.",
        {"departement": _DEPARTEMENT, "millesime": "years with imagery that may patch"},
    ),
    "departement_info": gauge(
        "millesimed_departement_info",
        "1",
        "Where a département lies, degrees.",
        {
            "departement": _DEPARTEMENT,
            "latitude": "one per département",
            "longitude": "one per département",
        },
    ),
    "patched_polygons": counter(
        "millesimed_patched_polygons_total", "polygons", "Polygons opened by patches."
    ),
    "patched_area": counter(
        "millesimed_patched_area_square_meters_total",
        "square metres",
        "Ground of the polygons opened by patches.",
        {"departement": _DEPARTEMENT},
    ),
    "changed_area": counter(
        "millesimed_changed_area_square_meters_total",
        "square metres",
        "Ground whose cover or usage patches changed, by legal effect.",
        {"departement": _DEPARTEMENT, "kind": KINDS},
    ),
    "transition_area": counter(
        "millesimed_transition_area_square_meters_total",
        "square metres",
        "Ground whose cover patches changed, from which to which.",
        {"cs_before": _COVER, "cs_after": _COVER},
    ),
    "transition_polygons": counter(
        "millesimed_transition_polygons_total",
        "polygons",
        "Pieces of ground whose cover patches changed, from which to which.",
        {"cs_before": _COVER, "cs_after": _COVER},
    ),
    "alerts": counter(
        "millesimed_alerts_total",
        "alerts",
        "Alert states entered.",
        {"kind": KINDS, "state": STATES},
    ),
    "regions_ignored": counter(
        "millesimed_regions_ignored_total",
        "regions",
        "Regions without effect, by reason.",
        {"reason": IGNORED_REASONS},
    ),
    # exports
    "export_jobs": gauge(
        "millesimed_export_jobs", "jobs", "Exports the service knows.", {"state": EXPORT_STATES}
    ),
    "exports": counter(
        "millesimed_exports_total",
        "jobs",
        "Exports by how they ended.",
        {"product": EXPORT_PRODUCTS, "outcome": EXPORT_OUTCOMES},
    ),
    "export_seconds": histogram(
        "millesimed_export_seconds",
        "seconds",
        "From the beginning of a job to its end.",
        EXPORT_BUCKETS,
        {"product": EXPORT_PRODUCTS},
    ),
    "export_bytes": gauge("millesimed_export_bytes", "bytes", "Files of exports that are kept."),
    "export_written": counter(
        "millesimed_export_written_bytes_total", "bytes", "Files of exports written."
    ),
    "publications": gauge(
        "millesimed_publications",
        "publications",
        "Publications on this machine that go on, and maps whose last one failed or was killed.",
        {"state": PUBLICATION_STATES},
    ),
    # corrections
    "corrections": counter(
        "millesimed_corrections_total",
        "polygons",
        "Polygons people drew, by what came of them: applied, or why not.",
        {"outcome": CORRECTION_OUTCOMES},
    ),
    # the detector
    "scenes": counter(
        "millesimed_scenes_total", "scenes", "Scenes judged by a detector.", {"detector": DETECTORS}
    ),
    "flagged": gauge(
        "millesimed_flagged_ratio",
        "ratio",
        "Share of the last scene flagged as changed.",
        {"detector": _JUDGED},
    ),
    "flagged_drift": gauge(
        "millesimed_flagged_drift_sigmas",
        "standard deviations",
        "How far the flagged share of recent scenes lies from the running normal, since the start.",
        {"detector": _JUDGED},
    ),
    "confidence": histogram(
        "millesimed_region_confidence_ratio",
        "probability",
        "Probability of the regions a detector found.",
        CONFIDENCE_BUCKETS,
        {"detector": DETECTORS},
    ),
    "residual": histogram(
        "millesimed_registration_residual_pixels",
        "pixels",
        "What registration leaves between the dates, one value a scene that could be registered.",
        RESIDUAL_BUCKETS,
    ),
    "throughput": gauge(
        "millesimed_detect_pixels_per_second",
        "pixels per second",
        "Pixels judged per second, last scene.",
        {"detector": _JUDGED},
    ),
    # the machine
    "gpu_utilization": gauge(
        "millesimed_gpu_utilization_ratio",
        "ratio",
        "Share of time the GPU was busy, as NVML samples it.",
        {"gpu": _GPU},
        only="CUDA in use, nvidia-ml-py installed",
    ),
    "gpu_memory_used": gauge(
        "millesimed_gpu_memory_used_bytes",
        "bytes",
        "Memory of the GPU in use, by whomever.",
        {"gpu": _GPU},
        only="CUDA in use",
    ),
    "gpu_memory_total": gauge(
        "millesimed_gpu_memory_total_bytes",
        "bytes",
        "Memory of the GPU.",
        {"gpu": _GPU},
        only="CUDA in use",
    ),
    "store_bytes": gauge(
        "millesimed_store_bytes", "bytes", "Size of a store's file.", {"departement": _DEPARTEMENT}
    ),
    "wal_bytes": gauge(
        "millesimed_store_wal_bytes",
        "bytes",
        "Size of its write-ahead log.",
        {"departement": _DEPARTEMENT},
    ),
    "free_bytes": gauge(
        "millesimed_store_free_bytes",
        "bytes",
        "Space left to the service on the file system of a store.",
        {"departement": _DEPARTEMENT},
    ),
    "checkpoint_seconds": histogram(
        "millesimed_checkpoint_seconds",
        "seconds",
        "Time a store's checkpoint takes.",
        CHECKPOINT_BUCKETS,
        {"departement": _DEPARTEMENT},
    ),
    "checkpoint_at": gauge(
        "millesimed_checkpoint_timestamp_seconds",
        "seconds since 1970",
        "When a store's log was last folded into its file.",
        {"departement": _DEPARTEMENT},
    ),
    "build": gauge("millesimed_build_info", "1", "Version running.", {"version": (__version__,)}),
}
"""Every metric by its attribute in ``Metrics``. The process's own (``process_*``) come from the
client library."""
