"""A concept's items in space, before and after the SAE, and the tree over their centroids."""

from collections.abc import Mapping, Sequence
from typing import Any

from saerepgeo.report.page import wording
from saerepgeo.report.page.plots import SYMBOLS_3D, Plot, View, axes, color, dots, text

Shown = Mapping[str, Any]
LONGEST = 90
"""Characters of a prompt in a hover."""
GREY = "#777777"


def space_name(space: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> str:
    """Return what figures call a space; of several SAEs `beside` it with its SAE."""
    name = str(space["space"]).replace("random", "random dictionary")
    n_saes = len({other["sae"] for other in beside} - {""})
    return f"{name} ({space['sae']})" if space["sae"] and n_saes > 1 else name


def scene_plot(shown: Sequence[Shown]) -> Plot:
    """Return the points at the items' mentions on three components, before beside after."""
    plot = Plot("Items before and after the SAE, in three dimensions", ("concept", "after"))
    for each in shown:
        for after in each["spaces"][1:]:
            before = each["spaces"][0]
            data = [*_scene(each, before, "scene"), *_scene(each, after, "scene2")]
            name = space_name(after, each["spaces"])
            titles = ["before: residuals", f"after: {text(name)}"]
            layout = {"scene": _axes(), "scene2": _axes(), "meta": titles}
            note = (
                f"n = {len(before['points'])} mentions of {len(before['present'])} items; left "
                f"the residuals ({_shares(before)}), right the {name} "
                f"({_shares(after)}), turned alike. PC: principal component, in units of the "
                "residuals. A name stands at its item's centroid; drag to turn, click to hide."
            )
            alt = f"{each['concept']}: items in the residuals and in the {name}"
            plot.add((each["concept"], name), View(data, layout, note, alt))
    return plot


def tree_plot(shown: Sequence[Shown]) -> Plot:
    """Return the minimum spanning tree over the items' centroids."""
    plot = Plot("Spanning tree of the items", ("concept", "space"))
    for each in shown:
        for space in each["spaces"]:
            where = space_name(space, each["spaces"])
            weight, x, y = sum(space["lengths"]), [], []
            for first, second in space["tree"]:
                for end in (space["centers"][first], space["centers"][second]):
                    x.append(end[0])
                    y.append(end[1])
                x.append(None)
                y.append(None)
            edges: dict[str, Any] = {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "hoverinfo": "skip",
            }
            edges |= {"line": {"color": GREY, "width": 1.5}, "showlegend": False}
            names = [each["items"][number] for number in space["present"]]
            flat = [[center[axis] for center in space["centers"]] for axis in (0, 1)]
            nodes: dict[str, Any] = dots("items", 0, flat[0], flat[1], names, showlegend=False)
            nodes |= {
                "mode": "markers+text",
                "text": [text(name) for name in names],
                "textposition": "top center",
            }
            layout = axes("principal component 1", "principal component 2")
            layout["yaxis"] |= {"scaleanchor": "x"}
            note = (
                f"n = {len(space['points'])} mentions of {len(names)} items; tree found in all "
                f"dimensions and drawn in two; its weight is {wording.number(weight)}, in units "
                "of the residuals."
            )
            alt = f"Spanning tree of {each['concept']} in the {where}"
            plot.add((each["concept"], where), View([edges, nodes], layout, note, alt))
    return plot


def _scene(each: Shown, space: Mapping[str, Any], scene: str) -> list[dict[str, Any]]:
    data = []
    for index, (item, center) in enumerate(zip(space["present"], space["centers"], strict=True)):
        rows = [row for row, own in enumerate(space["items"]) if own == item]
        name = each["items"][item]
        hover = [f"<b>{text(name)}</b><br>{text(_prompt(each, space, row))}" for row in rows]
        marker = {"size": 4, "color": color(index), "symbol": SYMBOLS_3D[index % len(SYMBOLS_3D)]}
        about: dict[str, Any] = {
            "type": "scatter3d",
            "scene": scene,
            "name": text(name),
            "legendgroup": str(item),
        }
        about |= {"showlegend": scene == "scene", "hoverinfo": "text", "marker": marker}
        places = {k: [space["points"][row][i] for row in rows] for i, k in enumerate("xyz")}
        data.append(about | {"mode": "markers", "hovertext": hover} | places)
        middle = {k: [x] for k, x in zip("xyz", center, strict=True)}
        label: dict[str, Any] = {
            "mode": "text",
            "text": [text(name)],
            "hoverinfo": "skip",
            "showlegend": False,
        }
        label |= {"textfont": {"size": 12, "color": color(index)}}
        data.append(about | label | middle)
    return data


def _prompt(each: Shown, space: Mapping[str, Any], row: int) -> str:
    number = space["prompts"][row]
    if number >= len(each["prompts"]):
        return f"prompt {number + 1}"
    prompt = each["prompts"][number]
    return prompt if len(prompt) <= LONGEST else prompt[: LONGEST - 1] + "…"


def _axes() -> dict[str, Any]:
    titles = {
        k: {"text": f"PC {number}", "font": {"size": 11}} for number, k in enumerate("xyz", 1)
    }
    camera = {"eye": {"x": 0.56, "y": 0.56, "z": 0.36}, "projection": {"type": "orthographic"}}
    found = {f"{k}axis": {"title": title} for k, title in titles.items()}
    return found | {"aspectmode": "data", "camera": camera}


def _shares(space: Mapping[str, Any]) -> str:
    return f"{sum(space['share']):.0%} of the variance"
