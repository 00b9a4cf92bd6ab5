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
            equal: dict[tuple[int, int], list[torch.Tensor]] = {}
            for weight in group["params"][together.rank() :: together.size()]:
                equal.setdefault(weight.flatten(1).shape, []).append(weight)
            for shape, weights in equal.items():
                directions = torch.stack([self._momentum(weight, group["momentum"]) for weight in weights])
                directions = orthogonal(directions) * (0.2 * max(shape) ** 0.5)
                for weight, direction in zip(weights, directions):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction.view_as(weight), alpha=-group["lr"])
            together.share(group["params"])

    def _momentum(self, weight: torch.Tensor, amount: float) -> torch.Tensor:
        """The gradient with momentum (Nesterov's), as a matrix."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - amount)
        return weight.grad.lerp(state["momentum"], amount).flatten(1)
