"""Clouds of points, by coordinates or distances, and their nearest neighbors."""

# ruff: noqa: F403

from saerepgeo.geometry.clouds.cloud import *
from saerepgeo.geometry.clouds.conversion import *
from saerepgeo.geometry.clouds.dense import *
from saerepgeo.geometry.clouds.linkage import *
from saerepgeo.geometry.clouds.matrix import *
from saerepgeo.geometry.clouds.neighbors import *
from saerepgeo.geometry.clouds.pairwise import *
from saerepgeo.geometry.clouds.sparse import *
