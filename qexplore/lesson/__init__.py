"""What the notebooks teach with: questions answered before the figures are shown, exercises that hint, and words."""

from qexplore.lesson import exercises as exercises  # registers them
from qexplore.lesson.exercise import check
from qexplore.lesson.words import beside, sentences, words
from qexplore.widgets.figure import shown
from qexplore.widgets.question import Answer, ask

__all__ = ["Answer", "ask", "beside", "check", "sentences", "shown", "words"]
