"""Recipes: validation, rules and JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexplore import LayerRule, QexploreError, Recipe, TensorSpec
from qexplore.recipe import MODES, OVERFLOW_GUARDS

OPTIONS = st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text())


def specs(per_channel: bool) -> st.SearchStrategy[TensorSpec]:
    """Any TensorSpec; one for activations has no channels."""
    channels = st.booleans() if per_channel else st.just(False)
    return st.builds(TensorSpec, st.text(min_size=1), st.integers(2, 8), st.booleans(), channels, OPTIONS)


ACTIVATION, WEIGHT = specs(per_channel=False), specs(per_channel=True)
PATTERNS = st.text(min_size=1)
RULES = st.one_of(
    st.builds(LayerRule, PATTERNS, keep_float=st.just(True)),
    st.builds(LayerRule, PATTERNS, activation=ACTIVATION, weight=st.none() | WEIGHT),
    st.builds(LayerRule, PATTERNS, weight=WEIGHT),
)
RECIPES = st.builds(
    Recipe,
    mode=st.sampled_from(MODES),
    activation=ACTIVATION,
    weight=WEIGHT,
    fuse=st.booleans(),
    engine=st.text(min_size=1),
    rules=st.lists(RULES, max_size=3),
    seed=st.integers(0, 2**40),
    overflow_guard=st.sampled_from(OVERFLOW_GUARDS),
    epochs=st.integers(1, 100),
)


@given(RECIPES)
def test_json_round_trip(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_recipes_are_values() -> None:
    rules = [LayerRule("fc", keep_float=True)]
    assert Recipe(rules=rules) == Recipe(rules=tuple(rules))
    assert len({Recipe(), Recipe(), Recipe(fuse=False)}) == 2


def test_options_are_kept_as_sorted_pairs() -> None:
    spec = TensorSpec("aciq", options={"way": "up", "bins": 512, "share": 0.5})
    assert spec.options == (("bins", 512), ("share", 0.5), ("way", "up"))
    assert dict(spec.options)["share"] == 0.5
    same = TensorSpec("aciq", options=spec.options)
    assert spec == same == TensorSpec("aciq", options={"share": 0.5, "way": "up", "bins": 512})
    assert len({spec, same, TensorSpec("aciq"), TensorSpec("aciq", options={"bins": 513})}) == 3
    assert TensorSpec().options == TensorSpec(options={}).options == ()


def test_options_are_an_object_in_json() -> None:
    recipe = Recipe(
        activation=TensorSpec("percentile", options={"percentile": 99.5}),
        rules=[LayerRule("fc", weight=TensorSpec("aciq", options={"distribution": "gauss"}))],
    )
    written = json.loads(recipe.to_json())
    assert written["activation"]["options"] == {"percentile": 99.5}
    assert written["weight"]["options"] == {}
    assert written["rules"][0]["weight"]["options"] == {"distribution": "gauss"}
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json('{"activation": {"observer": "minmax"}}').activation.options == ()


SPEC = TensorSpec()
REFUSED = {
    "bits-1": (lambda: TensorSpec(bits=1), "bits", "from 2 to 8"),
    "bits-9": (lambda: TensorSpec(bits=9), "bits", "from 2 to 8"),
    "bits-float": (lambda: TensorSpec(bits=8.0), "bits", "whole number"),
    "bits-true": (lambda: TensorSpec(bits=True), "bits", "whole number"),
    "bits-none": (lambda: TensorSpec(bits=None), "bits", "whole number"),
    "symmetric-text": (lambda: TensorSpec(symmetric="yes"), "symmetric", "True or False"),
    "per_channel-int": (lambda: TensorSpec(per_channel=1), "per_channel", "True or False"),
    "observer-none": (lambda: TensorSpec(observer=None), "observer", "give the name"),
    "options-number": (lambda: TensorSpec(options=99.9), "options", "by name"),
    "options-text": (lambda: TensorSpec(options="percentile"), "options", "by name"),
    "options-none": (lambda: TensorSpec(options=None), "options", "by name"),
    "options-list": (lambda: TensorSpec(options=["percentile", 99.9]), "options", "by name"),
    "options-value-none": (lambda: TensorSpec(options={"percentile": None}), "options", "by name"),
    "options-value-bool": (lambda: TensorSpec(options={"percentile": True}), "options", "by name"),
    "options-value-list": (lambda: TensorSpec(options={"percentile": [99.9]}), "options", "by name"),
    "options-value-nan": (lambda: TensorSpec(options={"percentile": float("nan")}), "options", "by name"),
    "options-value-inf": (lambda: TensorSpec(options={"percentile": float("inf")}), "options", "by name"),
    "options-name-number": (lambda: TensorSpec(options={1: 99.9}), "options", "by name"),
    "options-names-mixed": (lambda: TensorSpec(options={1: 2.0, "a": 3.0}), "options", "by name"),
    "mode-typo": (lambda: Recipe(mode="statik"), "mode", "did you mean 'static'"),
    "mode-none": (lambda: Recipe(mode=None), "mode", "dynamic, static, qat"),
    "guard": (lambda: Recipe(overflow_guard="weight"), "overflow_guard", "did you mean 'weights'"),
    "fuse": (lambda: Recipe(fuse=None), "fuse", "True or False"),
    "engine": (lambda: Recipe(engine=None), "engine", "name"),
    "activation": (lambda: Recipe(activation=8), "activation", "TensorSpec"),
    "activation-none": (lambda: Recipe(activation=None), "activation", "TensorSpec"),
    "weight": (lambda: Recipe(weight="minmax"), "weight", "TensorSpec"),
    "seed": (lambda: Recipe(seed=-1), "seed", "from 0 up"),
    "seed-text": (lambda: Recipe(seed="0"), "seed", "whole number"),
    "epochs": (lambda: Recipe(epochs=0), "epochs", "from 1 up"),
    "rules-text": (lambda: Recipe(rules=("fc",)), "rules", "LayerRule(pattern"),
    "rules-no-list": (lambda: Recipe(rules=LayerRule("fc", keep_float=True)), "rules", "LayerRule(pattern"),
    "rules-none": (lambda: Recipe(rules=None), "rules", "LayerRule(pattern"),
    "activation-channels": (lambda: Recipe(activation=TensorSpec(per_channel=True)), "per_channel", "weights only"),
    "rule-channels": (
        lambda: Recipe(rules=[LayerRule("fc", activation=TensorSpec(per_channel=True))]),
        "per_channel",
        "weights only",
    ),
    "rule-empty-pattern": (lambda: LayerRule("", keep_float=True), "pattern", "give a layer name"),
    "rule-no-text": (lambda: LayerRule(3, keep_float=True), "pattern", "give a layer name"),
    "rule-both": (lambda: LayerRule("fc", keep_float=True, weight=SPEC), "'fc'", "choose one"),
    "rule-nothing": (lambda: LayerRule("fc"), "'fc'", "set keep_float, activation or weight"),
    "rule-keep-text": (lambda: LayerRule("fc", keep_float="no"), "keep_float", "True or False"),
    "rule-weight": (lambda: LayerRule("fc", weight=4), "weight", "TensorSpec"),
    "json-broken": (lambda: Recipe.from_json("{"), "recipe", "not valid JSON"),
    "json-list": (lambda: Recipe.from_json("[]"), "recipe", "give an object"),
    "json-setting": (lambda: Recipe.from_json('{"modes": "qat"}'), "'modes'", "did you mean 'mode'"),
    "json-spec": (lambda: Recipe.from_json('{"weight": {"bit": 4}}'), "'bit'", "did you mean 'bits'"),
    "json-spec-null": (lambda: Recipe.from_json('{"weight": null}'), "weight", "TensorSpec"),
    "json-rules": (lambda: Recipe.from_json('{"rules": "fc"}'), "rules", "give a list"),
    "json-rule": (lambda: Recipe.from_json('{"rules": [{"name": "fc"}]}'), "'name'", "pattern"),
    "json-rule-lacks": (lambda: Recipe.from_json('{"rules": [{"keep_float": true}]}'), "rule", "pattern"),
    "json-options": (lambda: Recipe.from_json('{"weight": {"options": [1]}}'), "options", "by name"),
    "json-options-null": (lambda: Recipe.from_json('{"weight": {"options": {"a": null}}}'), "options", "by name"),
    "json-value": (lambda: Recipe.from_json('{"weight": {"bits": 16}}'), "bits", "from 2 to 8"),
}


@pytest.mark.parametrize(("make", "named", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_setting_and_the_remedy(make, named: str, remedy: str) -> None:
    with pytest.raises(QexploreError) as error:
        make()
    message = str(error.value)
    assert named in message and remedy in message
    assert message.endswith((".", "?")) and "\n" not in message


def test_json_names_every_setting() -> None:
    recipe = json.loads(Recipe(rules=[LayerRule("fc", keep_float=True)]).to_json())
    assert set(recipe) == {
        "mode", "activation", "weight", "fuse", "engine", "rules", "seed", "overflow_guard", "epochs",
        "steps",
    }  # fmt: skip
    assert set(recipe["weight"]) == {"observer", "bits", "symmetric", "per_channel", "options"}
    assert set(recipe["rules"][0]) == {"pattern", "keep_float", "activation", "weight"}


@pytest.mark.parametrize(
    ("pattern", "layer", "expected"),
    [
        ("fc", "fc", True),
        ("fc", "fc2", False),
        ("blocks", "blocks.0.conv1", True),
        ("blocks.0", "blocks.0.conv1", True),
        ("blocks.0", "blocks.01.conv1", False),
        ("conv1", "blocks.0.conv1", False),
        ("*conv1", "blocks.0.conv1", True),
        ("blocks.*.conv1", "blocks.0.conv1", True),
        ("blocks.*.conv1", "blocks.0.conv2", False),
        ("blocks.[01]", "blocks.1.add", True),
        ("conv?", "conv1", True),
        ("FC", "fc", False),
    ],
)
def test_patterns(pattern: str, layer: str, expected: bool) -> None:
    assert LayerRule(pattern, keep_float=True).matches(layer) is expected


def test_the_last_matching_rule_wins() -> None:
    four, six = TensorSpec(bits=4), TensorSpec(bits=6)
    recipe = Recipe(rules=[LayerRule("*", weight=four), LayerRule("a", keep_float=True), LayerRule("a.b", weight=six)])
    assert recipe.specs_for("c") == (recipe.activation, four)
    assert recipe.specs_for("a.x") is None
    assert recipe.specs_for("a.b") == (recipe.activation, six)
    assert Recipe().specs_for("c") == (recipe.activation, recipe.weight)


def test_bits_are_the_fewest_of_all_specs() -> None:
    assert Recipe().bits == 8
    assert Recipe(rules=[LayerRule("fc", weight=TensorSpec(bits=3))]).bits == 3
    assert Recipe(activation=TensorSpec(bits=5)).bits == 5
