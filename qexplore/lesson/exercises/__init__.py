"""The checks of the notebooks' exercises, a file for each lesson; importing this registers them all."""

from qexplore.lesson.exercises import affine as affine
