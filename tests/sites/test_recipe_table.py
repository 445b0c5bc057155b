"""docs/guides/recipes.md says what the table of recipes does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensoradapt.sites.from_module_tree import NAMES
from tensoradapt.sites.recipe import Recipe
from tensoradapt.sites.recipe_table import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "recipes.md").read_text()


def row(recipe: Recipe) -> str:
    parts = [part for stack in recipe.every for part in stack.parts]
    coordinates = {"stack": any(stack.name for stack in recipe.every), "layer": True}
    coordinates |= {"attn": any(part.attn for part in parts), "proj": True}
    coordinates |= {"expert": any(part.stacked for part in parts)}
    stacks = ", ".join(stack.name for stack in recipe.every if stack.name) or "one"
    cells = [f"`{recipe.name}`", ", ".join(f"`{kind}`" for kind in recipe.model_types), stacks]
    cells += [", ".join(name for name, has in coordinates.items() if has)]
    cells += [" ".join(dict.fromkeys(part.proj for part in parts))]
    return f"| {' | '.join(cells)} |"


def test_the_page_has_a_row_for_each_recipe_and_no_other() -> None:
    table = PAGE.split("## Recipes")[1].split("\n\n")[2].splitlines()
    assert table[2:] == [row(recipe) for recipe in RECIPES]


@pytest.mark.parametrize("role", NAMES)
def test_the_page_lists_the_names_that_the_module_tree_is_read_by(role: str) -> None:
    assert f"| {role} | {', '.join(f'`{end}`' for end in NAMES[role].split())} |" in PAGE
