# SPDX-License-Identifier: MIT
"""Tables of text, and a chart."""
import statistics
from xml.sax.saxutils import escape

COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#97bbf5", "#9c6b4e"]


def spread(values):
    return min(values), statistics.median(values), max(values)


def short(value):
    if value >= 1e4:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values, write):
    """Median (min-max)."""
    low, median, high = spread(values)
    return f"{write(median)} ({write(low)}-{write(high)})" if len(values) > 1 else write(median)


def ratios(values, base):
    """Round by round, as the two were measured side by side."""
    return [a / b for a, b in zip(values["rounds"], base["rounds"])]


def table(heading, rows):
    """Rows of words, the first left, the others right."""
    rows = [heading] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    lines = []
    for first, *rest in rows:
        lines.append("  ".join([first.ljust(widths[0])] + [word.rjust(w) for word, w in zip(rest, widths[1:])]))
    return "\n".join(lines) + "\n"


def values_table(results, workloads, subjects):
    """Median (min-max) of each main figure; results: {workload: {subject: {figure: values}}}."""
    rows = []
    for workload in workloads:
        for figure in results[workload]["figures"]:
            row, unit = [], ""
            for subject in subjects:
                values = results[workload]["subjects"].get(subject, {}).get(figure)
                if values is None:
                    row.append("-")
                    continue
                unit = values["unit"]
                row.append(cell(values["rounds"], short))
            rows.append([f"{workload} {figure}, {unit}"] + row)
    return table(["median (min-max)"] + subjects, rows)


def ratio_rows(results, workloads, subjects, base):
    """[(workload, {subject: ratios to base})] of all that is a rate."""
    rows = []
    for workload in workloads:
        of = results[workload]["subjects"]
        if "rate" not in of.get(base, {}):
            continue
        found = {name: ratios(of[name]["rate"], of[base]["rate"]) for name in subjects if name in of and name != base}
        if found:
            rows.append((workload, found))
    return rows


def ratio_table(rows, subjects, base):
    columns = [name for name in subjects if name != base]
    text = [[workload] + [cell(found[name], "{:.2f}".format) if name in found else "-" for name in columns]
            for workload, found in rows]
    return table([f"ratio to {base}; above 1: better"] + columns, text)


def chart(title, panels, subjects, base):
    """An SVG of bars; panels: [(where, ratio rows)]. A line stands at 1: as good as base."""
    columns = [name for name in subjects if name != base]
    label_px, bar_px, scale_px, row_gap, top = 190, 9, 320, 8, 60
    longest = max([max(values) for _, rows in panels for _, found in rows for values in found.values()] + [1.0])
    longest = min(longest, 3.0)  # what is far better than base needs no long bar

    def x_of(ratio):
        return label_px + scale_px * min(ratio, longest) / longest

    shapes, y = [], top
    legend_x = 10
    for i, name in enumerate(columns):
        shapes.append(f'<rect x="{legend_x}" y="34" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>'
                      f'<text x="{legend_x + 14}" y="43">{escape(name)}</text>')
        legend_x += 34 + 7 * len(name)
    for where, rows in panels:
        y += 16
        shapes.append(f'<text x="10" y="{y}" font-weight="bold">{escape(where)}</text>')
        y += 8
        begin = y
        for workload, found in rows:
            shapes.append(f'<text x="10" y="{y + bar_px * len(found) / 2 + 4:.0f}">{escape(workload)}</text>')
            for i, name in enumerate(columns):
                if name not in found:
                    continue
                low, median, high = spread(found[name])
                bar = x_of(median) - label_px
                shapes.append(f'<rect x="{label_px}" y="{y}" width="{bar:.1f}" height="{bar_px - 1}" '
                              f'fill="{COLOURS[i % len(COLOURS)]}"/>'
                              f'<path d="M{x_of(low):.1f} {y + bar_px / 2}H{x_of(high):.1f}" stroke="#333"/>'
                              f'<text x="{x_of(max(median, high)) + 5:.1f}" y="{y + bar_px - 1}" font-size="9">'
                              f'{median:.2f}</text>')
                y += bar_px
            y += row_gap
        shapes.append(f'<path d="M{x_of(1):.1f} {begin}V{y}" stroke="#999" stroke-dasharray="3"/>')
    width = max(label_px + scale_px + 60, legend_x)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 20}" font-family="sans-serif" '
            f'font-size="11"><rect width="100%" height="100%" fill="white"/>'
            f'<text x="10" y="20" font-size="13">{escape(title)}</text>' + "\n".join(shapes) + "</svg>\n")
