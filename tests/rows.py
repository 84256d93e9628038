"""From the reference's layout, all rows below each other (crop-major, image, token), to ours, one tensor per view."""

import torch

from ssl_lens.methods.network import Output


def output_from_rows(
    cls: torch.Tensor, region: torch.Tensor, features: torch.Tensor, *, n_tokens: list[int], n_images: int
) -> Output:
    sizes = [n_images * n for n in n_tokens]
    return Output(
        view_features=torch.empty(len(n_tokens), n_images, 0),
        view_logits=cls.unflatten(0, (-1, n_images)),
        region_logits=tuple(part.unflatten(0, (1, n_images, -1)) for part in region.split(sizes)),
        regions=tuple(part.unflatten(0, (1, n_images, -1)) for part in features.split(sizes)),
    )
