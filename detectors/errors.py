"""What can be wrong with an image, each named for the situation and with the reason that dead
letters count. Messages are one sentence that says what to do."""

from __future__ import annotations

from schemas.errors import MillesimedError


class DetectionError(MillesimedError):
    """The pair cannot be judged."""

    reason = "detection"


class UnreadableImage(DetectionError):
    """No image format this service opens."""

    reason = "unreadable-image"


class TruncatedImage(DetectionError):
    """The header promises pixels the file does not hold."""

    reason = "truncated-image"


class BandlessImage(DetectionError):
    """No band, or more than any sensor delivers."""

    reason = "bad-bands"


class ImageTooLarge(DetectionError):
    """More pixels than are accepted, refused before anything is allocated."""

    reason = "image-too-large"


class WrongCrs(DetectionError):
    """No CRS, or another one than the event announced."""

    reason = "wrong-crs"


class NoOverlap(DetectionError):
    """The two images share no ground."""

    reason = "no-overlap"


class NothingValid(DetectionError):
    """No pixel is valid in both images."""

    reason = "nothing-valid"


class UnknownDetector(DetectionError):
    """No detector has that name, or it lacks what it needs."""

    reason = "unknown-detector"


class DamagedState(DetectionError):
    """A kept time series that is cut short, altered, or of another version."""

    reason = "damaged-state"
