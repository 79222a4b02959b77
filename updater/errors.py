"""What can go wrong with the map, each with the reason dead letters and metrics count."""

from __future__ import annotations

from schemas.errors import MillesimedError


class StoreError(MillesimedError):
    """The store cannot be opened or written."""

    reason = "store"


class CheckpointPostponed(StoreError):
    """Somebody reads an older state; the log is folded in later."""


class StoreLocked(StoreError):
    """Another process holds the store."""

    reason = "store-locked"


class ImportFailed(MillesimedError):
    """The map file cannot become a store."""

    reason = "import"


class ExportFailed(MillesimedError):
    """A product could not be written whole; nothing of it is left."""

    reason = "export"


class OutsideMap(MillesimedError):
    """The footprint touches no store."""

    reason = "outside-the-map"


class OlderThanMap(MillesimedError):
    """The acquisition is older than what the map already shows."""

    reason = "older-than-the-map"


class ReferenceMissing(MillesimedError):
    """No image of the previous millésime covers the ground."""

    reason = "reference-missing"


class PatchRefused(MillesimedError):
    """A patch would break an invariant of the map; nothing was changed."""

    reason = "patch-refused"


class NotFound(MillesimedError):
    """Nothing has that id."""

    reason = "not-found"


class Settled(MillesimedError):
    """The alert is not one to decide on any more."""

    reason = "settled"


class AlertMissing(MillesimedError):
    """A correction answers an alert that no map of this service has."""

    reason = "alert-missing"
