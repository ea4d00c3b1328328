"""The curves of a run as a picture, made from its TensorBoard event file.

`python -m saerepgeo.report.curves RUN_FOLDER PICTURE.png`
"""

import sys
from pathlib import Path

from saerepgeo.report.palette import COLORS, new_figure

PANELS = {
    "val/mse": "mse of held-out text\n(squared residual units)",
    "val/fvu": "variance unexplained\n(held-out text)",
    "val/aedp": "AEDP, held-out prompts\n(residual units)",
    "val/heldout_items/aedp": "AEDP, held-out items\n(residual units)",
    "val/relative_aedp": "relative AEDP,\nheld-out prompts",
    "val/heldout_items/relative_aedp": "relative AEDP,\nheld-out items",
}


def draw_curves(run: Path, picture: Path) -> None:
    """Draw the validation curves of the event file in `run`; ValueError where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()["scalars"]
    if "val/mse" not in tags:
        raise ValueError(f"expected a TensorBoard event file with val/mse in {run}, found none")
    figure = new_figure(9, 5)
    for axes, (tag, title) in zip(figure.subplots(2, 3).T.flatten(), PANELS.items(), strict=True):
        if tag in tags:
            steps, values = zip(*((p.step, p.value) for p in events.Scalars(tag)), strict=True)
            axes.plot(steps, values, marker="o", markersize=3, color=COLORS[0])
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw_curves(Path(sys.argv[1]), Path(sys.argv[2]))
