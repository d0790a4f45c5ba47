"""Writes the dashboards' JSON: `python -m deploy.grafana.generate`, or `make dashboards`.

The JSON is made by grafana-foundation-sdk, Grafana's own library, whose types know Grafana's
schema; `tests/deploy` holds the files to what this makes.
"""

import itertools
from pathlib import Path

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import Board, Form, Panel

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = model.DataSourceRef(type_val="prometheus", uid="prometheus")
BUILDERS = {
    Form.LINES: timeseries.Panel,
    Form.STACK: timeseries.Panel,
    Form.HEATMAP: heatmap.Panel,
    Form.NUMBER: stat.Panel,
    Form.STATES: statetimeline.Panel,
}


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(as_json(board))


def as_json(board: Board) -> str:
    """One dashboard as Grafana reads it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["turnpoint"])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Turnpoint").tags(["turnpoint"]).as_dropdown(False))
        .readonly()
    )
    for name, query in board.variables.items():
        made.with_variable(
            dashboard.QueryVariable(name)
            .datasource(SOURCE)
            .query(query)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(model.VariableOption(text="All", value="$__all"))
        )
    numbers = itertools.count(1)
    for heading, panels in board.rows.items():
        made.with_row(dashboard.Row(heading).id(next(numbers)))
        for panel in panels:
            made.with_panel(built(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def built(panel: Panel) -> timeseries.Panel:
    """One panel; all builders share what is used here."""
    made = (
        BUILDERS[panel.form]()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
    )
    for letter, (legend, query) in zip("ABCDEFGH", panel.queries.items(), strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query).legend_format(legend)
        if panel.form == Form.HEATMAP:
            target.format(PromQueryFormat.HEATMAP)
        made.with_target(target)
    for pattern, colour in panel.colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        made.override_by_regexp(pattern, [model.DynamicConfigValue("color", fixed)])
    STYLES[panel.form](made, panel)
    return made


def as_lines(made: timeseries.Panel, panel: Panel) -> None:
    """Lines from 0 on; a limit is a dashed line."""
    made.fill_opacity(12).line_width(1).show_points(options.VisibilityMode.NEVER)
    made.legend(
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
    ).tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    if panel.limit is not None:
        made.thresholds(thresholds(panel)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
        )


def as_stack(made: timeseries.Panel, panel: Panel) -> None:
    """Lines on top of each other."""
    as_lines(made, panel)
    made.fill_opacity(35).stacking(
        common.StackingConfig().mode(options.StackingMode.NORMAL).group("A")
    )


def as_heatmap(made: heatmap.Panel, panel: Panel) -> None:
    """Buckets as Prometheus counts them, warmer where more; the unit is that of the axis."""
    made.unit("cps").calculate(False).color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("Spectral")
        .reverse(False)
        .steps(64)
    ).show_legend().show_tooltip().y_axis(heatmap.YAxisConfig().unit(panel.unit))


def as_number(made: stat.Panel, panel: Panel) -> None:
    """The last value, large, over a faint line of the past."""
    made.graph_mode(options.BigValueGraphMode.AREA).reduce_options(
        common.ReduceDataOptions().calcs(["lastNotNull"])
    )
    if panel.limit is not None:
        made.thresholds(thresholds(panel))


def as_states(made: statetimeline.Panel, panel: Panel) -> None:
    """A band a series, coloured by its value."""
    made.show_value(options.VisibilityMode.NEVER).row_height(0.8)
    made.mappings(
        [
            model.ValueMap(
                options={
                    value: model.ValueMappingResult(text=word, color=colour)
                    for value, (word, colour) in panel.states.items()
                }
            )
        ]
    )


STYLES = {
    Form.LINES: as_lines,
    Form.STACK: as_stack,
    Form.HEATMAP: as_heatmap,
    Form.NUMBER: as_number,
    Form.STATES: as_states,
}


def thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green on the good side of the limit, red on the other."""
    below, above = ("red", "green") if panel.limit_below else ("green", "red")
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                model.Threshold(value=None, color=below),
                model.Threshold(value=panel.limit, color=above),
            ]
        )
    )


if __name__ == "__main__":
    main()
