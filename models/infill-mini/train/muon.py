"""Muon (Jordan 2024): momentum whose matrices are made orthogonal before each step, which small networks learn faster with."""

import torch

import together


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest matrix with singular values about 1, by Newton and Schulz' iteration (the coefficients of the source).

    Every iterate is a polynomial of x x^T times x, so only that polynomial is iterated: it is a small square.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    gram = x @ x.T
    factor = torch.eye(len(x), device=x.device)
    for _ in range(steps):
        square = factor @ gram @ factor
        factor = 3.4445 * factor + (-4.7750 * square + 2.0315 * square @ square) @ factor
    x = factor @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """For weights with two or more axes; the axes after the first count as one."""

    def __init__(self, weights, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One step along the orthogonal direction, as large as an AdamW step of the same rate (a root mean square of 0.2)."""
        for group in self.param_groups:
            mine = group["params"][together.rank() :: together.size()]
            for weight in mine:
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                direction = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                direction = orthogonal(direction) * (0.2 * max(direction.shape) ** 0.5)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction.view_as(weight), alpha=-group["lr"])
            together.share(group["params"])
