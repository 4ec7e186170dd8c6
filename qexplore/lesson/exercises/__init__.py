"""The checks of the notebooks' exercises, a file for each lesson; importing this registers them all."""

from qexplore.lesson.exercises import affine as affine
from qexplore.lesson.exercises import diagnose as diagnose
from qexplore.lesson.exercises import dynamic as dynamic
from qexplore.lesson.exercises import explorer as explorer
from qexplore.lesson.exercises import own_model as own_model
from qexplore.lesson.exercises import qat as qat
from qexplore.lesson.exercises import speed as speed
from qexplore.lesson.exercises import static as static
