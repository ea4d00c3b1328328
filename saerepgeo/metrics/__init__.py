"""The geometry functions as torchmetrics: accumulate over batches and processes, then compute once.

Each class holds sufficient statistics where they exist, else a bounded sample of points, and calls
`saerepgeo.geometry` for the figure. Whatever the batches and however many the processes, the same
points give the same result.
"""

__all__: list[str] = []
