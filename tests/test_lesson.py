"""What the notebooks teach with: questions, exercises, words."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import lesson
from qexplore.glossary import GLOSSARY
from qexplore.lesson.exercise import EXERCISES, called, close
from qexplore.plots.theme import figure
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.question import Question


def answered(question: Question, answer: str) -> Question:
    question.given.value = answer
    question.commit.click()
    return question


def test_a_choice_is_revealed_only_after_the_learner_has_committed() -> None:
    asked = []

    def reveal() -> lesson.Answer:
        asked.append(1)
        return lesson.Answer("larger", "because.", pd.DataFrame({"SQNR": [1.0]}, index=["digits"]))

    question = lesson.ask("Is it larger or smaller?", reveal, ["smaller", "larger"])
    assert question.commit.disabled and question.given.value is None and not question.verdict
    question.commit.click()
    assert not asked and not question.error_panel.message
    answered(question, "smaller")
    assert asked == [1]
    assert "You chose “smaller”. It is <b>larger</b>. because." in question.verdict
    assert "digits" in question.children[-1].children[0].value
    assert question.given.disabled and question.commit.layout.display == "none"


def test_a_right_choice_is_called_right() -> None:
    question = lesson.ask("?", lambda: lesson.Answer("yes", "So it is."), ["yes", "no"])
    assert "You were right: <b>yes</b>. So it is." in answered(question, "yes").verdict


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("12.5", "12.5"), ("−3", "-3"), ("12,5", "12.5"), ("40 %", "40"), ("6 dB", "6"), ("4x", "4"), ("1,000", "1000")],
)
def test_a_number_is_compared_with_the_true_one(typed: str, shown: str) -> None:
    question = lesson.ask("How many?", lambda: lesson.Answer(6.02, "One bit."), unit="dB")
    answered(question, typed)
    assert f"You said {shown} dB" in question.verdict and "It is <b>6.020 dB</b>. One bit." in question.verdict


@pytest.mark.parametrize("typed", ["many", "nan", "1e999", "1.2.3", "%"])
def test_what_is_no_number_is_refused_and_may_be_typed_again(typed: str) -> None:
    question = lesson.ask("How many?", lambda: lesson.Answer(6.0, ""))
    answered(question, typed)
    assert "is not a number" in question.error_panel.message
    assert question.answer is None and not question.verdict and not question.commit.disabled
    answered(question, "6")
    assert question.answer is not None and not question.error_panel.message


def test_a_failing_reveal_is_told_and_can_be_tried_again() -> None:
    answers = iter([lesson.Answer("a", ""), lesson.Answer("c", "")])
    question = lesson.ask("?", lambda: next(answers), ["b", "c"])
    answered(question, "b")
    assert "not among the options" in question.error_panel.message and not question.verdict
    question.commit.click()
    assert "It is <b>c</b>" in question.verdict


def test_a_figure_is_drawn_once_revealed() -> None:
    question = answered(lesson.ask("?", lambda: lesson.Answer(1, "", figure([], "Title"))), "1")
    shown = question.children[-1].children[0]
    assert isinstance(shown, LiveFigure) and shown.shown.layout.title.text == "Title"


def test_what_cannot_be_shown_leaves_no_verdict() -> None:
    question = answered(lesson.ask("?", lambda: lesson.Answer(1, "", "text")), "1")  # type: ignore[arg-type]
    assert "show is a str" in question.error_panel.message and not question.verdict


def test_a_second_click_while_the_answer_is_computed_does_nothing() -> None:
    calls = []

    def reveal() -> lesson.Answer:
        calls.append(1)
        question.commit.click()
        return lesson.Answer(1, "")

    question = lesson.ask("?", reveal)
    answered(question, "1")
    assert calls == [1]


def test_text_is_shown_as_it_is_written() -> None:
    question = lesson.ask("Is 1 < 2?", lambda: lesson.Answer("a<b", "x<y"), ["a<b"])
    answered(question, "a<b")
    assert "1 &lt; 2" in question.children[1].value
    assert "a&lt;b" in question.verdict and "x&lt;y" in question.verdict


def test_an_exercise_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(qx.QexploreError, match=r"There is no exercise named 'best clipp'.*did you mean 'best clip'"):
        lesson.check("best clipp", 1)


@pytest.mark.parametrize("answer", [(..., ...), (0.1, ...), (None, 3)])
def test_what_is_not_filled_in_gets_the_first_hint(answer: tuple[object, ...]) -> None:
    verdict = lesson.check("scale and zero point", *answer)
    assert not verdict.passed and verdict.words == EXERCISES["scale and zero point"].start


@pytest.mark.parametrize("answer", [lambda *_: None, lambda *_: ..., 3, "text"])
def test_a_function_that_gives_nothing_gets_the_first_hint(answer: object) -> None:
    assert lesson.check("quantize and back", answer).words == EXERCISES["quantize and back"].start


def test_an_answer_that_fails_is_told_how() -> None:
    def broken(x, scale, zero_point):
        return x / undefined  # noqa: F821

    verdict = lesson.check("quantize and back", broken)
    assert not verdict.passed
    assert "NameError" in verdict.words and "undefined" in verdict.words


@pytest.mark.parametrize("answer", ["text", [1, 2], {}, object(), float("nan"), -1, 10**9])
@pytest.mark.parametrize("name", ["best clip", "how few bits", "where the error begins"])
def test_answers_of_any_kind_get_a_sentence(name: str, answer: object) -> None:
    verdict = lesson.check(name, answer)
    assert not verdict.passed and len(verdict.words) > 10


def codes_then_back(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    return (torch.round(x / scale + zero_point).clamp(0, 255) - zero_point) * scale


def zeroed(*tensors: torch.Tensor) -> torch.Tensor:
    return tensors[0].zero_()


def half_rounded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().max() / 127
    return x @ (torch.round(weight / scale) * scale).T + bias


def folded_in_place(
    weight: torch.Tensor, bias: torch.Tensor, norm: nn.BatchNorm2d
) -> tuple[torch.Tensor, torch.Tensor]:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight.mul_(factor.reshape(-1, 1, 1, 1)), bias.sub_(norm.running_mean).mul_(factor).add_(norm.bias)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("quantize and back", codes_then_back),
        ("how few bits", 5.0),
        ("how few bits", np.int64(5)),
        ("how few bits", torch.tensor(5)),
        ("whole range", lambda stats, spec: [stats.lo, stats.hi]),
        ("fold a BatchNorm", folded_in_place),
    ],
)
def test_right_answers_in_another_form_pass(name: str, answer: object) -> None:
    assert lesson.check(name, answer).passed, lesson.check(name, answer)


@pytest.mark.parametrize(
    ("name", "answer", "hint"),
    [
        ("quantize and back", zeroed, "No value"),
        ("dynamic linear", lambda x, weight, bias: x @ weight.T * math.nan, "NaN or infinite"),
        ("dynamic linear", half_rounded, "x was not rounded"),
        ("dynamic linear", lambda x, weight, bias: zeroed(x) @ weight.T + bias, "SQNR"),
        ("surely faster", lambda a, b: min(x / y for x, y in zip(a, b, strict=True)) > 1, "lower quartile"),
        ("fold a BatchNorm", lambda w, b, n: (zeroed(w), zeroed(b)), "is not weight"),
    ],
)
def test_wrong_answers_that_once_passed_are_refused(name: str, answer: object, hint: str) -> None:
    verdict = lesson.check(name, answer)
    assert not verdict.passed
    assert hint in verdict.words or hint == "No value", verdict


def test_evaluate_must_leave_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    data = torch.randn(40, 4), torch.randint(3, (40,))
    held_out = torch.randn(30, 4), torch.randint(3, (30,))

    def measured(model: nn.Module) -> float:
        return float((model(held_out[0]).argmax(1) != held_out[1]).float().mean())

    def no_children(model: nn.Module) -> float:
        was = model.training
        model.eval()
        with torch.no_grad():
            found = measured(model)
        model.training = was
        return found

    def for_good(model: nn.Module) -> float:
        was = model.training
        model.eval()
        torch.set_grad_enabled(False)
        found = measured(model)
        model.train(was)
        return found

    def solved(model: nn.Module) -> float:
        was = model.training
        model.eval()
        with torch.no_grad():
            found = measured(model)
        model.train(was)
        return found

    given = (model, data, held_out)
    assert lesson.check("write evaluate", solved, *given).passed
    assert "left in" in lesson.check("write evaluate", no_children, *given).words
    assert "for good" in lesson.check("write evaluate", for_good, *given).words
    assert torch.is_grad_enabled()


def test_calibration_batches_are_training_images() -> None:
    training, held_out = torch.randn(200, 1, 8, 8), torch.randn(50, 1, 8, 8)
    for batches, hint in (
        (list(training.split(16)), "Batch 12 has 8 images"),
        ([torch.randn(16, 1, 8, 8)] * 8, "no training images"),
        ([training[:16]] * 8, "16 different images"),
        (list(training[:128].double().split(16)), "float64"),
    ):
        assert hint in lesson.check("calibration batches", batches, training, held_out).words
    assert lesson.check("calibration batches", list(training[:128].split(16)), training, held_out).passed


def test_a_verdict_is_shown_with_its_words_escaped() -> None:
    verdict = lesson.check("best clip", "<b>")
    assert (
        "<b>'" not in verdict._repr_html_() and "Not yet." in verdict._repr_html_() and repr(verdict)[:8] == "Not yet."
    )


def test_words_are_those_of_the_glossary() -> None:
    shown = lesson.words("scale", "zero point")
    assert GLOSSARY["scale"] in shown._repr_html_() and "observer" not in shown.texts
    assert lesson.words().texts == GLOSSARY
    with pytest.raises(qx.QexploreError, match=r"There is no term named 'scales'.*did you mean 'scale'"):
        lesson.words("scales")


def test_texts_stand_beside_each_other_as_they_are() -> None:
    text = "a < b\n  and " + "so on " * 50
    made = lesson.beside({"float": text, "int8": "c"})._repr_html_()
    assert made.count("<tr") == 2 and made.count("<td") == 2
    assert text.replace("<", "&lt;") in made


def test_sentences_are_shown_whole() -> None:
    found = "word " * 60 + "<end>"
    shown = lesson.sentences(pd.DataFrame({"fine": [True], "found": [found]}, index=["point"]))
    assert found.replace("<", "&lt;").replace(">", "&gt;") in shown._repr_html_()
    assert repr(shown) == f"point: True {found}"


def test_a_whole_number_is_shown_as_one() -> None:
    question = answered(lesson.ask("How many?", lambda: lesson.Answer(1055, "")), "5")
    assert "You said 5. It is <b>1,055</b>." in question.verdict


def test_the_glossary_is_in_order() -> None:
    assert list(GLOSSARY) == sorted(GLOSSARY, key=str.lower)


def test_helpers_of_checks() -> None:
    assert called(lambda a, b: a + b, 1, 2) == 3
    assert close("1.0001", 1) and not close(1.1, 1)
