"""The curves of a run as a picture, made from its TensorBoard event file.

`python -m saerepgeo.report.curves RUN_FOLDER PICTURE.png`
"""

import sys
from pathlib import Path

PANELS = (
    ("val/mse", "mse of held-out text\n(squared residual units)"),
    ("val/fvu", "variance unexplained\n(held-out text)"),
    ("val/aedp", "AEDP, held-out prompts\n(residual units)"),
    ("val/heldout_items/aedp", "AEDP, held-out items\n(residual units)"),
    ("val/relative_aedp", "relative AEDP,\nheld-out prompts"),
    ("val/heldout_items/relative_aedp", "relative AEDP,\nheld-out items"),
)


def draw_curves(run: Path, picture: Path) -> None:
    """Draw the validation curves of the event file in `run`.

    Raises:
        ValueError: `run` holds no event file with validation figures.
    """
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    if "val/mse" not in tags:
        raise ValueError(f"expected a TensorBoard event file with val/mse in {run}, found none")
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, (tag, title) in zip(figure.subplots(2, 3).T.flatten(), PANELS, strict=True):
        if tag in tags:
            points = events.Scalars(tag)
            steps, values = [p.step for p in points], [p.value for p in points]
            axes.plot(steps, values, marker="o", markersize=3, color="#0072B2")
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw_curves(Path(sys.argv[1]), Path(sys.argv[2]))
