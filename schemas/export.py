"""What a map can be taken away as: product, millésimes, territory, format, resolution."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.acquisition import TERRITORY_PATTERN
from schemas.subscription import Code

FINEST_M: Final = 0.5
"""Metres a pixel: outlines of the product are not truer than that."""
COARSEST_M: Final = 1_000.0


@unique
class ExportProduct(StrEnum):
    """What is in the file."""

    MAP = "map"
    """OCCUPATION_SOL of a millésime."""
    DIFFERENTIAL = "differential"
    """What changed between two millésimes."""
    CORRECTIVE = "corrective"
    """PATCHCORRECTIF: what the older millésime should have said."""
    CHANGELOG = "changelog"
    """Every polygon of two millésimes: added, removed, changed, unchanged."""
    RASTER = "raster"
    """A millésime as pixels of one class each."""


@unique
class ExportFormat(StrEnum):
    """The file's format."""

    GPKG = "gpkg"
    SHP = "shp"
    FGB = "fgb"
    GEOPARQUET = "geoparquet"
    COG = "cog"
    GEOTIFF = "geotiff"


@unique
class ExportTheme(StrEnum):
    """What the pixels of a raster say."""

    COVER = "couverture"
    USAGE = "usage"
    LEGAL = "artificialisation"


RASTERS: Final = frozenset({ExportFormat.COG, ExportFormat.GEOTIFF})
ONE_YEAR: Final = frozenset({ExportProduct.MAP, ExportProduct.RASTER})
"""Products of one millésime; the others are of two."""
Year = Annotated[int, Field(ge=1900, le=2200)]


class ExportRequest(BaseModel):
    """One file somebody wants."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    departement: str | None = Field(
        default=None,
        pattern=TERRITORY_PATTERN,
        description="As in D032; needed where several are served.",
    )
    territory: Code | None = Field(
        default=None, description="INSEE, SIREN or SCOT code; without one the whole département."
    )
    product: ExportProduct
    millesime: Year | None = Field(default=None, description="Of `map` and `raster`.")
    before: Year | None = Field(default=None, description="The older millésime of the others.")
    after: Year | None = Field(default=None, description="The newer one.")
    format: ExportFormat
    resolution: float | None = Field(
        default=None, ge=FINEST_M, le=COARSEST_M, description="Metres a pixel; of `raster`."
    )
    theme: ExportTheme | None = Field(default=None, description="Of `raster`; else couverture.")
    crs: str | None = Field(
        default=None,
        pattern=r"^EPSG:[0-9]{4,6}$",
        description="One of those `/map/state` names for the département; else the map's own.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        years = (self.before, self.after)
        if self.product in ONE_YEAR:
            if self.millesime is None or years != (None, None):
                raise ValueError(f"{self.product} takes millesime, and neither before nor after")
        elif self.millesime is not None or self.before is None or self.after is None:
            raise ValueError(f"{self.product} takes before and after, and no millesime")
        elif self.before >= self.after:
            raise ValueError("before is the older millésime, after the newer one")
        if (self.product is ExportProduct.RASTER) != (self.format in RASTERS):
            raise ValueError(
                "raster is written as cog or geotiff, everything else as gpkg, shp, fgb or "
                "geoparquet"
            )
        if self.product is ExportProduct.RASTER:
            if self.resolution is None:
                raise ValueError("raster takes a resolution, metres a pixel")
        elif self.resolution is not None or self.theme is not None:
            raise ValueError("only raster takes a resolution or a theme")
        return self

    @property
    def years(self) -> tuple[int, ...]:
        """The one millésime, or the older and the newer."""
        found = (self.millesime, self.before, self.after)
        return tuple(year for year in found if year is not None)
