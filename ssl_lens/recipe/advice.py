"""What a run is told where its features are worth less than they were, or than some that cost nothing."""

from __future__ import annotations

from ssl_lens.engine.watch import BEST, INITIAL, WAVELETS, Shortfall
from ssl_lens.recipe.recipe import Recipe

OTHERS = {
    INITIAL: "those of the network as training began with it",
    WAVELETS: "the fixed ones of lens_wavelets",
    BEST: "those of the best epoch before",
}


def advice_on(shortfall: Shortfall, recipe: Recipe) -> str:
    """One line: by how much, and what to change; nothing that the recipe has already."""
    if recipe.data.probe is None:
        of = f"tell the views of one image from those of {shortfall.trials:,}"
    else:
        of = f"give {shortfall.trials:,} images of data.probe their class"
    return (
        f"the features {of} with an accuracy of {shortfall.value:.3f}, {OTHERS[shortfall.than]} with "
        f"{shortfall.level:.3f}, more than the noise of {shortfall.noise:.3f}: {_what_to_change(shortfall, recipe)}"
    )


def _what_to_change(shortfall: Shortfall, recipe: Recipe) -> str:
    if shortfall.than == BEST:
        return f"further training does not pay; take {recipe.run.folder}/best, lower optim.epochs or optim.lr"
    fixed = "use fixed features (ssl-lens fit lens_wavelets OUT --data DIR)"
    if recipe.data.path is None and recipe.simulate.renderings > 1:
        return (
            "lower optim.lr, raise simulate.count_per_class, widen simulate.set.einstein_radius_arcsec to the rings of "
            f"your images, or {fixed}"
        )
    if recipe.data.renderings is not None:
        return f"lower optim.lr, give renderings of more lenses, with rings as wide as those of your images, or {fixed}"
    return (
        "views of one image teach what they share; train on renderings of simulated lenses (ssl-lens pretrain "
        "lenses_minute), take what was trained so (ssl-lens fit lens_small OUT --data DIR), lower optim.lr, or "
        f"{fixed}"
    )
