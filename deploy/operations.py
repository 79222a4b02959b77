"""The dashboard of the person on duty: are the maps late, and where does it hang?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import heatmap, stat
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import units

from deploy.panels import (
    BYTES,
    DAY,
    SECONDS,
    SHARE,
    WHERE,
    figure,
    lines,
    page,
    quantile,
    spread,
)


def operations() -> board.Dashboard:
    """Are the maps late, and where does it hang?"""
    sheet = page("operations", "operations", "now-6h", operations.__doc__ or "")
    sheet.with_row(board.Row("Are the maps late?"))
    for panel in _late():
        sheet.with_panel(panel)
    for title, panels in (
        ("Where do images come from?", _acquired()),
        ("Where does it hang?", _stages()),
        ("The way out", _way_out()),
        ("How long does it take?", _latencies()),
        ("What fails?", _failures()),
        ("The detector", _detector()),
        ("Exports", _exports()),
        ("The machine", _machine()),
    ):
        sheet.with_row(board.Row(title))
        for one in panels:
            sheet.with_panel(one)
    return sheet


def _late() -> list[stat.Panel]:
    return [
        figure(
            "Oldest event without effect",
            "The map is late by this much: red after a day.",
            SECONDS,
            "max(millesimed_source_waiting_seconds)",
            amber=DAY / 4,
            red=DAY,
        ),
        figure(
            "Events waiting",
            "In the topic or the inbox, the one in hand included.",
            units.Short,
            "sum(millesimed_source_lag)",
            amber=20,
            red=1_000,
        ),
        figure(
            "Last event came in",
            "Nothing for a month is nobody announcing images.",
            SECONDS,
            "time() - max(millesimed_last_event_timestamp_seconds)",
            amber=7 * DAY,
            red=30 * DAY,
        ),
        figure(
            "Main loop turned",
            "Longest of all processes; it turns several times a second.",
            SECONDS,
            "max(time() - millesimed_loop_timestamp_seconds)",
            red=60,
        ),
        figure(
            "Processes that do not answer",
            "Of those Prometheus is told to ask.",
            units.Short,
            'count(up{job="millesimed"}) - sum(up{job="millesimed"})',
            red=1,
        ),
        figure(
            "Alerts firing",
            "Each has an entry in docs/operations.md under its own name.",
            units.Short,
            'count(ALERTS{alertname=~"Millesimed.+",alertstate="firing"}) or vector(0)',
            red=1,
        ),
    ]


def _acquired() -> list[series.Panel]:
    source = "{{source}}"
    return [
        lines(
            "Images announced, per day",
            "By source of the configuration.",
            units.Short,
            ("sum by (source) (increase(millesimed_acquired_images_total[1d]))", source),
        ),
        lines(
            "Last looked at to the end",
            "How long ago; one that rises is a source that does not answer.",
            SECONDS,
            ("time() - max by (source) (millesimed_acquire_success_timestamp_seconds)", source),
        ),
        lines(
            "Failures per hour, and what is owed",
            "`millesimed acquire list` says why.",
            units.Short,
            (
                "sum by (source, kind) (increase(millesimed_acquire_failures_total[1h]))",
                "{{source}} ({{kind}}) failures",
            ),
            ("max by (source) (millesimed_acquire_owed)", f"{source} owed"),
        ),
        lines(
            "Downloaded, per hour",
            "By source.",
            BYTES,
            ("sum by (source) (increase(millesimed_acquired_bytes_total[1h]))", source),
        ),
    ]


def _stages() -> list[series.Panel]:
    stage = "{{stage}}"
    return [
        lines(
            "In progress",
            "A stage that holds an event for hours and finishes none is where it hangs.",
            units.Short,
            ("sum by (stage) (millesimed_stage_in_progress)", stage),
        ),
        lines(
            "In and out of each stage, per hour",
            "In without out is a stage that fails or hangs.",
            units.Short,
            ("sum by (stage) (increase(millesimed_stage_started_total[1h]))", f"{stage} in"),
            ("sum by (stage) (increase(millesimed_stage_finished_total[1h]))", f"{stage} out"),
        ),
        lines(
            "Seconds in a stage, 95 %",
            "Over a quarter of an hour.",
            SECONDS,
            ("stage:millesimed_stage_seconds:p95_15m", stage),
        ),
        lines(
            "Newest acquisition a stage has finished",
            "Its age. Where two neighbours part, the later one is behind.",
            SECONDS,
            ("stage:millesimed_acquisition_age_seconds:min", stage),
        ),
        lines(
            "Lag by partition",
            "Events behind the end of the topic; one partition alone is one bad event or key. With "
            "what the Kafka clients complained of within an hour.",
            units.Short,
            ("sum by (partition) (millesimed_source_lag)", "{{partition}}"),
            (
                "sum by (client) (increase(millesimed_kafka_errors_total[1h]))",
                "{{client}} errors",
            ),
        ),
        lines(
            "Asked of detect processes",
            "Acquisitions without a judgement, and how long the oldest has waited: one that rises "
            "alone is a task that keeps killing its worker.",
            units.Short,
            ("sum by (instance) (millesimed_asked_events)", "{{instance}} asked"),
            ("max by (instance) (millesimed_asked_waiting_seconds)", "{{instance}} seconds"),
        ),
        lines(
            "Alerts by name",
            "When which alert fired.",
            units.Short,
            (
                'sum by (alertname) (ALERTS{alertname=~"Millesimed.+",alertstate="firing"}) '
                "or on () vector(0)",
                "{{alertname}}",
            ),
        ),
    ]


def _way_out() -> list[series.Panel]:
    channel = "{{channel}}"
    return [
        lines(
            "Outbox depth and alerts due",
            "Messages a channel lacks, alerts subscribers have not been told.",
            units.Short,
            ("max by (channel) (millesimed_outbox_depth)", channel),
            ("max by (channel) (millesimed_subscription_backlog)", f"{channel} subscribers"),
            ("max by (channel) (millesimed_parked_messages)", f"{channel} parked"),
        ),
        lines(
            "Waiting",
            "The oldest of them.",
            SECONDS,
            ("max by (channel) (millesimed_outbox_age_seconds)", channel),
            (
                "max by (channel) (millesimed_subscription_waiting_seconds)",
                f"{channel} subscribers",
            ),
        ),
        lines(
            "Messages out, per hour",
            "Published to channels, delivered to subscribers.",
            units.Short,
            ("sum by (channel) (increase(millesimed_published_total[1h]))", channel),
            (
                "sum by (channel) (increase(millesimed_delivered_total[1h]))",
                f"{channel} subscribers",
            ),
        ),
    ]


def _latencies() -> list[series.Panel | heatmap.Panel]:
    return [
        lines(
            "Event to alert",
            "From the sending of an event to the publication of its alerts.",
            SECONDS,
            ("channel:millesimed_event_to_alert_seconds:p95_1h", "{{channel}} 95 %"),
            (quantile(0.5, "millesimed_event_to_alert_seconds", "channel"), "{{channel}} 50 %"),
            (quantile(0.95, "millesimed_event_to_publish_seconds"), "commit to publication 95 %"),
        ),
        spread(
            "Event to alert, all",
            "How many alerts took how long.",
            SECONDS,
            "sum by (le) (increase(millesimed_event_to_alert_seconds_bucket[$__rate_interval]))",
        ),
        lines(
            "Acquisition to patch",
            "From the flight to the line that moved; mostly the way of the image to us.",
            SECONDS,
            (quantile(0.95, "millesimed_acquisition_to_patch_seconds", window="1d"), "95 %"),
            (quantile(0.5, "millesimed_acquisition_to_patch_seconds", window="1d"), "50 %"),
        ),
    ]


def _failures() -> list[series.Panel]:
    return [
        lines(
            "Events by outcome, per hour",
            "Duplicates are harmless.",
            units.Short,
            ("sum by (outcome) (increase(millesimed_events_total[1h]))", "{{outcome}}"),
            (
                "sum by (stage) (increase(millesimed_stage_failures_total[1h]))",
                "failed in {{stage}}",
            ),
        ),
        lines(
            "Dead letters by reason, per hour",
            "`millesimed dead-letters list` shows them.",
            units.Short,
            ("sum by (reason) (increase(millesimed_dead_letters_total[1h]))", "{{reason}}"),
        ),
        lines(
            "Regions ignored, people's corrections, per day",
            "`topology` should be rare; `corrected` is ground that people corrected.",
            units.Short,
            ("sum by (reason) (increase(millesimed_regions_ignored_total[1d]))", "{{reason}}"),
            (
                "sum by (outcome) (increase(millesimed_corrections_total[1d]))",
                "correction: {{outcome}}",
            ),
        ),
    ]


def _detector() -> list[series.Panel | heatmap.Panel]:
    detector = "{{detector}}"
    return [
        lines(
            "Drift of the flagged share",
            "Recent scenes against the running normal, standard deviations: beyond 4 it drifts.",
            units.Short,
            ("millesimed_flagged_drift_sigmas", detector),
        ),
        lines(
            "Share of the last scene flagged",
            "Of all pixels.",
            SHARE,
            ("millesimed_flagged_ratio", detector),
        ),
        spread(
            "Confidence of regions",
            "Probabilities of what was found; a mass that moves down is a detector that doubts.",
            SHARE,
            "sum by (le) (increase(millesimed_region_confidence_ratio_bucket[$__rate_interval]))",
        ),
        lines(
            "Residual of registration",
            "Pixels; a day's scenes.",
            units.Short,
            ("job:millesimed_registration_residual_pixels:p50_1d", "50 %"),
            (quantile(0.95, "millesimed_registration_residual_pixels", window="1d"), "95 %"),
        ),
        lines(
            "Pixels judged per second",
            "The last scene.",
            units.Short,
            ("millesimed_detect_pixels_per_second", detector),
        ),
        lines(
            "Scenes, per hour",
            "By detector.",
            units.Short,
            ("sum by (detector) (increase(millesimed_scenes_total[1h]))", detector),
        ),
    ]


def _exports() -> list[series.Panel]:
    return [
        lines(
            "Exports, per hour",
            "By how they ended; `kept` was answered with a file that was there.",
            units.Short,
            ("sum by (outcome) (increase(millesimed_exports_total[1h]))", "{{outcome}}"),
        ),
        lines(
            "Exports known, by state",
            "Queued ones wait for their turn; a full queue answers 503.",
            units.Short,
            ("sum by (state) (millesimed_export_jobs)", "{{state}}"),
        ),
        lines(
            "Time of an export, 95 %",
            "By product; an hour's jobs.",
            SECONDS,
            (quantile(0.95, "millesimed_export_seconds", "product", window="1h"), "{{product}}"),
        ),
        lines(
            "Files of exports",
            "Kept now, and written in an hour.",
            BYTES,
            ("sum(millesimed_export_bytes)", "kept"),
            ("sum(increase(millesimed_export_written_bytes_total[1h]))", "written"),
        ),
        lines(
            "Publications, by state",
            "Under way on the service's machine; failed or interrupted ones go on when run again.",
            units.Short,
            ("sum by (state) (millesimed_publications)", "{{state}}"),
        ),
    ]


def _machine() -> list[series.Panel]:
    ours, place = '{job="millesimed"}', "{{departement}}"
    return [
        lines(
            "Processor",
            "Cores in use; the GPU's share of time.",
            units.Short,
            (f"rate(process_cpu_seconds_total{ours}[$__rate_interval])", "{{instance}} cores"),
            ("millesimed_gpu_utilization_ratio", "GPU {{gpu}}"),
        ),
        lines(
            "Memory",
            "Of the process, and of the GPU where one is in use.",
            BYTES,
            (f"process_resident_memory_bytes{ours}", "{{instance}} resident"),
            (f"process_virtual_memory_bytes{ours}", "{{instance}} virtual"),
            ("millesimed_gpu_memory_used_bytes", "GPU {{gpu}}"),
            ("millesimed_gpu_memory_total_bytes", "GPU {{gpu}} in all"),
        ),
        lines(
            "Open files",
            "Against the process's own limit.",
            units.Short,
            (f"process_open_fds{ours}", "{{instance}}"),
            (f"process_max_fds{ours}", "{{instance}} at most"),
        ),
        lines(
            "Store",
            "The file, its write-ahead log, and what the disk has left.",
            BYTES,
            (f"millesimed_store_bytes{WHERE}", f"{place} store"),
            (f"millesimed_store_wal_bytes{WHERE}", f"{place} log"),
            (f"millesimed_store_free_bytes{WHERE}", f"{place} left"),
        ),
        lines(
            "Checkpoint, 95 %",
            "Folding the log into the file.",
            SECONDS,
            (quantile(0.95, "millesimed_checkpoint_seconds", "departement"), place),
        ),
        lines(
            "Since the last checkpoint",
            "How long the log has not been folded into the file; one that stays empty needs none.",
            SECONDS,
            (f"time() - millesimed_checkpoint_timestamp_seconds{WHERE}", place),
        ),
        lines(
            "Running since, by version",
            "Seconds since the start of each process.",
            SECONDS,
            (
                f"(time() - process_start_time_seconds{ours}) * on (job, instance) "
                "group_left (version) millesimed_build_info",
                "{{instance}} {{version}}",
            ),
        ),
    ]
