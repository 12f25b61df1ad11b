"""AdamW that updates a row of the word embeddings only when a text reads it, and then catches up on the missed steps.

A step reads a few hundred of a vocabulary's 30,000 rows. AdamW moves all of them, since momentum and weight decay go on
without a gradient. The sum of these moves is known in closed form, so it is applied when the row is next read.
"""

import torch
from torch import nn

from foldblend.errors import UserError
from foldblend.learners.cpu.layers import is_available, run
from foldblend.settings.run import RunSettings

LEAST_SHARE, LEAST_WEIGHTS = 0.2, 1_000_000
"""`auto` asks for a table of this share of the trained weights, and of this many; below, the saving is not felt."""


class RowAdamW(torch.optim.AdamW):
    """AdamW, in which the rows of one table of embeddings are brought up to date when they are read.

    The state of the table, all float32:
      exp_avg, exp_avg_sq (V, H): a row's moments after step `seen` of it.
      seen (V,): the step up to which a row is up to date.
      drift, kept (steps + 1,): what the steps after s do to a row without gradient: w -> kept[s] * w - drift[s] * d,
      d = m / (sqrt(v) + eps'), the direction after step s, eps' being eps * sqrt(1 - beta2^s).

    Without gradient m shrinks by beta1 and v by beta2 a step, so the direction shrinks by their ratio
    q = beta1 / sqrt(beta2), and a step of rate lr with bias corrections c1, c2 makes
    drift[s] = drift[s] * (1 - lr * decay) + lr * sqrt(c2) / c1 * q^(now - s), kept[s] = kept[s] * (1 - lr * decay).
    Exact up to rounding and the drift of eps, which is counted as it was at step s.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2, summed over the steps without a gradient.
    """

    def __init__(self, groups: list[dict], table: nn.Embedding, betas: tuple[float, float], eps: float):
        super().__init__(groups, betas=betas, eps=eps, fused=True)
        self.table = table
        # the gradient then holds the rows that were read, and the hook brings these up to date before they are
        table.sparse = True
        table.register_forward_pre_hook(self._before_lookup)

    def _init_group(self, group, *lists):
        """Step counter and moments of the table are its own, so AdamW passes over it."""
        # torch's own step would make all of the sparse gradient dense
        dense = {**group, "params": [weight for weight in group["params"] if weight is not self.table.weight]}
        return super()._init_group(dense, *lists)

    @torch.no_grad()
    def step(self, closure=None):
        """One step of every weight; of the table, of the rows that have a gradient."""
        loss = super().step(closure)
        self._step_table()
        return loss

    @torch.no_grad()
    def update_waiting_rows(self) -> None:
        """Bring every row up to date, before the weights are evaluated or saved as finished."""
        if self.table.weight in self.state:
            self._catch_up(torch.arange(self.table.num_embeddings))

    def _before_lookup(self, module, inputs):
        # in evaluation every row is up to date already; before the first step there is nothing to catch up on
        if module.training and self.table.weight in self.state:
            with torch.no_grad():
                self._catch_up(inputs[0])

    def _catch_up(self, rows: torch.Tensor) -> None:
        """Do to `rows`, int64 (n,), what the steps since they were seen would have done."""
        state, weight, group = self.state[self.table.weight], self.table.weight, self._group()
        now = float(state["step"])
        if is_available():
            table = (weight, *(state[name] for name in ("exp_avg", "exp_avg_sq", "seen", "kept", "drift")))
            numbers = (now, *group["betas"], group["eps"], *weight.shape)
            run("catch_up_rows", torch.float32, rows.long().contiguous(), rows.numel(), *table, *numbers)
            return
        rows = rows.unique()
        seen = state["seen"][rows]
        rows, seen = rows[seen < now], seen[seen < now]
        (beta1, beta2), at, waited = group["betas"], seen.long(), (now - seen).unsqueeze(1)
        mean, square = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        # eps on the scale of sqrt(v) without its bias correction, as AdamW adds it to the corrected one
        floor = group["eps"] * (1 - beta2 ** seen.clamp(min=1)).sqrt().unsqueeze(1)
        # (n, H)
        direction = mean / square.sqrt().add_(floor)
        moved = weight[rows] * state["kept"][at].unsqueeze(1) - direction * state["drift"][at].unsqueeze(1)
        weight[rows] = moved
        # without a gradient both moments only decay
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean * beta1**waited, square * beta2**waited
        state["seen"][rows] = now

    def _step_table(self) -> None:
        weight, group = self.table.weight, self._group()
        if weight.grad is None:
            return
        if not self.state[weight]:
            self._start_table()
        state, (beta1, beta2), lr = self.state[weight], group["betas"], group["lr"]
        state["step"] += 1
        now, shrink = float(state["step"]), 1 - lr * group["weight_decay"]
        correction1, correction2 = 1 - beta1**now, (1 - beta2**now) ** 0.5
        # now - s for each earlier step s = 0 .. now - 1
        waits = torch.arange(now, 0, -1)
        # entry s of drift and kept now covers this step, too: the formulas of the docstring, for all s at once
        state["drift"].mul_(shrink).add_((beta1 / beta2**0.5) ** waits, alpha=lr * correction2 / correction1)
        # one number more a step: 4 bytes each, against V x H moves saved
        state["drift"] = torch.cat([state["drift"], torch.zeros(1)])
        state["kept"] = torch.cat([state["kept"] * shrink, torch.ones(1)])

        gradient = sum_rows(weight.grad)
        rows, values = gradient.indices()[0], gradient.values()
        if is_available():
            table = (weight, *(state[name] for name in ("exp_avg", "exp_avg_sq", "seen")))
            decays = (1 - beta1, beta2, 1 - beta2, group["eps"])
            numbers = (now, *decays, lr, shrink, correction1, correction2, weight.shape[1])
            run("step_rows", torch.float32, rows.contiguous(), values.contiguous(), len(rows), *table, *numbers)
            return
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        # from here on it is AdamW, algorithm 2, on the rows that have a gradient
        scale = (square.sqrt() / correction2).add_(group["eps"])
        weight[rows] = (weight[rows] * shrink).addcdiv_(mean, scale, value=-lr / correction1)
        state["exp_avg"][rows], state["exp_avg_sq"][rows], state["seen"][rows] = mean, square, now

    def _start_table(self) -> None:
        weight = self.table.weight
        self.state[weight] |= {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
            "seen": torch.zeros(len(weight)),
            "drift": torch.zeros(1),
            "kept": torch.ones(1),
        }

    def _group(self) -> dict:
        return next(g for g in self.param_groups if any(weight is self.table.weight for weight in g["params"]))


def choose_table(model: nn.Module, run: RunSettings, device: torch.device, n_processes: int) -> nn.Embedding | None:
    """The table of word embeddings whose rows are updated as they are read; None if all weights move at every step.

    Raises: UserError: the settings ask for it, and this model, run or launch cannot do it.
    """
    wanted = run.optimizer.embedding_updates
    if wanted == "every_step" or run.optimizer.state_precision == "8bit":
        return None
    table = _find_table(model)
    reasons = [
        (device.type != "cpu", f"the device is {device.type}"),
        (n_processes > 1, f"{n_processes} processes share the training"),
        (run.training.ema_decay > 0, "training.ema_decay reads every weight at every step"),
        (run.adversarial.name == "awp", "adversarial.name awp reads the dense gradient"),
        (table is None, "the model trains no plain table of word embeddings of its own"),
    ]
    against = [reason for holds, reason in reasons if holds]
    if wanted == "lazy" and against:
        raise UserError(f"optimizer.embedding_updates lazy: {against[0]}; use auto or every_step")
    if against or (wanted == "auto" and not _is_large(table, model)):
        return None
    return table


def sum_rows(gradient: torch.Tensor) -> torch.Tensor:
    """A sparse gradient (V, H) with every row once; a dense one (V, H) as a sparse one of all its rows."""
    if not gradient.is_sparse:
        rows = torch.arange(len(gradient)).unsqueeze(0)
        return torch.sparse_coo_tensor(rows, gradient, gradient.shape, is_coalesced=True, check_invariants=False)
    if gradient.is_coalesced():
        return gradient
    # a word that comes twice in a batch has two entries; AdamW has to see their sum once
    rows, where = gradient._indices()[0].unique(return_inverse=True)
    values = gradient._values()
    summed = values.new_zeros(len(rows), values.shape[1]).index_add_(0, where, values)
    shape = gradient.shape
    return torch.sparse_coo_tensor(rows.unsqueeze(0), summed, shape, is_coalesced=True, check_invariants=False)


def clip_rows(parameters: list[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale all gradients down to `max_norm` together, sparse ones as if they were dense; returns their norm before."""
    gradients = []
    for weight in parameters:
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = sum_rows(weight.grad)
            gradients.append(weight.grad._values())
        elif weight.grad is not None:
            gradients.append(weight.grad)
    # over values only: the zeros of a sparse gradient add nothing to the norm
    norm = nn.utils.get_total_norm(gradients)
    # 1e-6 as in torch.nn.utils.clip_grad_norm_
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:  # rare, and saves a pass over all gradients; NaN scales, and so spoils, them all
        torch._foreach_mul_(gradients, scale)
    return norm


def _find_table(model: nn.Module) -> nn.Embedding | None:
    for module in model.modules():
        table = module.get_input_embeddings() if hasattr(module, "get_input_embeddings") else None
        if isinstance(table, nn.Embedding) and table.weight.requires_grad and table.max_norm is None:
            # a matrix that is tied to the output layer gets a dense gradient through its other name
            names = [n for n, weight in model.named_parameters(remove_duplicate=False) if weight is table.weight]
            return table if len(names) == 1 and not table.scale_grad_by_freq else None
    return None


def _is_large(table: nn.Embedding, model: nn.Module) -> bool:
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return table.weight.numel() >= max(LEAST_WEIGHTS, LEAST_SHARE * trained)
