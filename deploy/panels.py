"""Panels of the Grafana dashboards: lines, figures, tables, distributions, maps."""

from __future__ import annotations

from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common, geomap, heatmap, prometheus, stat, table
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import geomap as map_model
from grafana_foundation_sdk.models import prometheus as query_model
from grafana_foundation_sdk.models import units

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WHERE: Final = '{departement=~"$departement"}'
DAY: Final = 86_400.0
SECONDS, BYTES, SQUARE_METRES, SHARE = (
    units.Seconds,
    units.BytesIEC,
    units.SquareMeters,
    units.PercentUnit,
)
HALF, THIRD, SIXTH = 12, 8, 4
"""Of the 24 columns of a dashboard."""
MIDDLE_OF_FRANCE: Final = (46, 2)
"""Latitude and longitude."""

P = TypeVar("P", series.Panel, stat.Panel, table.Panel, heatmap.Panel, geomap.Panel)
Query = tuple[str, str]
"""PromQL, and how a series is named."""


def _asked(panel: P, title: str, text: str, unit: str, size: tuple[int, int]) -> P:
    width, height = size
    panel.title(title).description(text).datasource(SOURCE).unit(unit)
    panel.grid_pos(model.GridPos(h=height, w=width, x=0, y=0))
    return panel


def _target(query: Query, number: int, *, instant: bool = False) -> prometheus.Dataquery:
    expr, legend = query
    target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + number))
    if instant:
        return target.instant().format(query_model.PromQueryFormat.TABLE)
    return target.range()


def lines(title: str, text: str, unit: str, *queries: Query, width: int = THIRD) -> series.Panel:
    """Lines over time."""
    panel = _asked(series.Panel(), title, text, unit, (width, 8)).fill_opacity(10)
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number))
    return panel


def figure(
    title: str, text: str, unit: str, expr: str, *, amber: float | None = None, red: float
) -> stat.Panel:
    """One figure, green until ``amber`` or ``red``."""
    steps = [model.Threshold(None, "green")]  # a step without a value is the base
    if amber is not None:
        steps.append(model.Threshold(amber, "orange"))
    steps.append(model.Threshold(red, "red"))
    panel = _asked(stat.Panel(), title, text, unit, (SIXTH, 4))
    limits = board.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    return (
        panel.with_target(_target((expr, ""), 0))
        .thresholds(limits)
        .color_mode(words.BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def rows(title: str, text: str, unit: str, expr: str, *, width: int = HALF) -> table.Panel:
    """A table of series as they are now."""
    panel = _asked(table.Panel(), title, text, unit, (width, 10))
    return panel.with_target(_target((expr, ""), 0, instant=True)).with_transformation(_without())


def spread(title: str, text: str, unit: str, expr: str, *, width: int = THIRD) -> heatmap.Panel:
    """A histogram's buckets over time."""
    panel = _asked(heatmap.Panel(), title, text, units.Short, (width, 8))
    target = _target((expr, "{{le}}"), 0).format(query_model.PromQueryFormat.HEATMAP)
    return panel.with_target(target).y_axis(heatmap.YAxisConfig().unit(unit))


def places(title: str, text: str, unit: str, expr: str) -> geomap.Panel:
    """A circle for each département, as large as its figure."""
    circle = common.MapLayerOptions().type("markers").name(title).tooltip(True)
    circle.location(
        common.FrameGeometrySource()
        .mode(words.FrameGeometrySourceMode.COORDS)
        .latitude("latitude")
        .longitude("longitude")
    ).config(
        {
            "style": {
                "size": {"field": "Value", "fixed": 5, "min": 4, "max": 40},
                "color": {"field": "Value", "fixed": "dark-red"},
                "opacity": 0.6,
            },
            "showLegend": True,
        }
    )
    latitude, longitude = MIDDLE_OF_FRANCE
    numbers = model.DataTransformerConfig(
        id_val="convertFieldType",
        options={
            "conversions": [
                {"targetField": field, "destinationType": "number"}
                for field in ("latitude", "longitude")
            ]
        },
    )
    panel = _asked(geomap.Panel(), title, text, unit, (HALF, 14))
    return (
        panel.with_target(_target((expr, ""), 0, instant=True))
        .with_transformation(numbers)
        .view(geomap.MapViewConfig().id("coords").lat(latitude).lon(longitude).zoom(5))
        .basemap(common.MapLayerOptions().type("default").name("Ground"))
        .layers([circle])
        .tooltip(geomap.TooltipOptions().mode(map_model.TooltipMode.DETAILS))
    )


def _without() -> model.DataTransformerConfig:
    hidden = {"Time": True, "job": True, "instance": True}
    return model.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})


def quantile(share: float, name: str, by: str = "", window: str = "1h") -> str:
    """PromQL of a quantile of a histogram."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({name}_bucket[{window}])))"


def page(uid: str, title: str, since: str, text: str) -> board.Dashboard:
    """An empty dashboard with its variables: data source and département."""
    source = board.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    source.current(model.VariableOption(selected=True, text="Prometheus", value="prometheus"))
    place = board.QueryVariable("departement").label("Département").datasource(SOURCE)
    place.query("label_values(millesimed_map_timestamp_seconds, departement)")
    place.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True)
    place.all_value(".*").current(model.VariableOption(selected=True, text="All", value="$__all"))
    return (
        board.Dashboard(f"millesimed: {title}")
        .uid(f"millesimed-{uid}")
        .description(text)
        .tags(["millesimed"])
        .timezone("utc")
        .refresh("30s")
        .time(since, "now")
        .with_variable(source)
        .with_variable(place)
    )
