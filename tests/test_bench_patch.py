"""The patch benchmark's maps are coverages, and its figures follow from what was done."""

import geopandas as gpd
import shapely

from daemon.bench.patch import bench_patch, make_map


def test_the_made_map_is_an_irregular_coverage(tmp_path):
    assert make_map(tmp_path / "m.gpkg", polygons=400, seed=1) == 400
    shapes = gpd.read_file(tmp_path / "m.gpkg").geometry.to_numpy()
    assert shapely.coverage_is_valid(shapes)
    assert shapely.get_num_coordinates(shapes).min() >= 20
    assert shapely.area(shapes).std() > 500


def test_figures_are_of_work_really_done():
    made = bench_patch(sizes=[400, 2500], events=2, seed=3)
    for row in made["sizes"]:
        assert row["import_valid"] and row["valid_after"] and not row["import_repaired"]
        assert row["changed_polygons"] + row["regions_ignored"] >= 2 * 20
        assert row["overlay_seconds"] > 0 and row["import_peak_memory_bytes"] > 1e8
    first, last = made["sizes"]
    ratio = last["seconds_per_changed_polygon"] / first["seconds_per_changed_polygon"]
    assert made["growth"] == ratio
