"""Muon (Jordan 2024): momentum whose matrices are made orthogonal before each step, which small networks learn faster with."""

import torch

import together


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrices with singular values about 1, by Newton and Schulz' iteration (the coefficients of the source).

    `matrices` (B, rows, columns). Every iterate is a polynomial of x x^T times x, so only that polynomial is iterated: it is
    a small square.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    gram = x @ x.mT
    factor = torch.eye(x.shape[1], device=x.device).expand_as(gram)
    for _ in range(steps):
        square = factor @ gram @ factor
        factor = 3.4445 * factor + (-4.7750 * square + 2.0315 * square @ square) @ factor
    x = factor @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For weights with two or more axes; the axes after the first count as one."""

    def __init__(self, weights, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One step along the orthogonal direction, as large as an AdamW step of the same rate (a root mean square of 0.2)."""
        for group in self.param_groups:
            own = group["params"][together.rank() :: together.size()]
            equal: dict[tuple[int, int], list[int]] = {}
            for index, weight in enumerate(own):
                equal.setdefault(weight.flatten(1).shape, []).append(index)
            moved = self._momenta(own, group["momentum"])
            for shape, places in equal.items():
                directions = orthogonal(torch.stack([moved[place].flatten(1) for place in places])) * (0.2 * max(shape) ** 0.5)
                for place, direction in zip(places, directions):
                    moved[place] = direction.view_as(own[place])
            torch._foreach_mul_(own, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(own, moved, alpha=-group["lr"])
            together.share(group["params"])

    def _momenta(self, weights: list[torch.Tensor], amount: float) -> list[torch.Tensor]:
        """The gradients with momentum (Nesterov's)."""
        for weight in weights:
            if weight not in self.state:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - amount)
        return list(torch._foreach_lerp(gradients, momenta, amount))
