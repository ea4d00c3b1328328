"""A TopK SAE whose latents are divided among devices: too large for one of them.

Every process keeps d_sae/R latents and has its own points. Points travel and weights stay: a step
moves O(point·(d_model + k)) numbers; to gather the weights (FSDP) would move O(d_model·d_sae).

1. The residuals of all processes are gathered; each process finds the k best of its latents.
2. These candidates go to the process that has the point, which answers which are the k best of all.
3. Each process sums the decoder rows of those it holds; the partial sums are added up where the
   point is. Gradients take the same ways back.

Parameters are DTensors on the "tensor_parallel" dimension of the mesh of Lightning's
`ModelParallelStrategy`, so that Lightning's checkpoints hold them whole.
"""

import copy
from typing import Any

import torch
from torch import Tensor, distributed, nn

from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import exchange, gather_points, mean_gradient, scatter_sums
from saerepgeo.sae.sparse.active_pairs import ActiveLatents, Pairs, PerLatent
from saerepgeo.sae.sparse.pair_products import preactivations
from saerepgeo.sae.sparse.selection import dense_topk
from saerepgeo.sae.sparsity import ForwardOutput, dead_latents_term, decode_dead
from saerepgeo.types import SparseLatents

LATENT_DIMENSION = {"W_enc": 1, "b_enc": 0, "W_dec": 0}
"""Which dimension of a parameter counts latents; b_dec has none and is held by all."""


def shard(model: SAEModel, mesh: Any) -> "TensorParallelSAE":
    """Divide the latents of a model among the processes of a mesh (see `TensorParallelSAE`)."""
    return TensorParallelSAE(model.sae, float(model.input_scale), mesh)


@torch.no_grad()
def unshard(model: SAEModel) -> SAEModel | None:
    """Return a sharded SAE as one model on the CPU of the first process, None on the others.

    Collective; a device holds one whole parameter at a time. Another model comes back as it is.
    """
    if not isinstance(model, TensorParallelSAE):
        return model
    whole = {}
    for parameter in model.sae.parameters():
        full = parameter.full_tensor()
        if model.rank == 0:
            whole[id(parameter)] = nn.Parameter(full.cpu())
    # the copy takes the whole parameters where the original has its parts
    return SAEModel(copy.deepcopy(model.sae, whole), float(model.input_scale)) if whole else None


def check_run(trainer: Any) -> None:
    """Raise ValueError where a run cannot be divided: it analyses, or would write pickles."""
    if trainer.testing or trainer.predicting:
        raise ValueError(
            "only `fit` and `validate` divide an SAE between devices; run the analyses on one, "
            "without `ModelParallelStrategy`"
        )
    # Lightning keeps the argument under this name alone
    if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
        raise ValueError(
            "`save_distributed_checkpoint` must be false: torch writes and reads the index of a "
            "distributed checkpoint as a pickle; set it in the strategy's init_args"
        )


class ShardedLatents(SparseLatents):
    """Latents of this process's points that remember which of all points' it holds itself."""

    kept: ActiveLatents


class TensorParallelSAE(SAEModel):
    """`SAEModel` of architecture topk over the processes of one device mesh.

    All methods that encode or decode are collective: every process calls them equally often, with
    points of its own, of any number. Gradients are those of the mean of the processes' losses.
    `sae` is SAELens' `TopKTrainingSAE`, whole and alike on every process; the "tensor_parallel"
    dimension of the device `mesh` divides its latents.

    Raises ValueError on another architecture, a number of latents that the processes do not
    divide, and a mesh that also has data-parallel replicas.
    """

    def __init__(self, sae: nn.Module, input_scale: float, mesh: Any) -> None:
        super().__init__(sae, input_scale)
        self.mesh = mesh["tensor_parallel"]
        _check(self, mesh)
        self.group = self.mesh.get_group()
        self.n_processes, self.rank = self.mesh.size(), self.mesh.get_local_rank()
        self.n_own = self.d_sae // self.n_processes
        self.first = self.rank * self.n_own
        # Lightning takes the optimizer's order (weights, then biases) for the module's: in this
        # order a checkpoint of one process is resumed sharded, and the other way round
        parameters = dict(self.sae.named_parameters())
        for name in sorted(parameters, key=lambda name: name.startswith("b_")):
            delattr(self.sae, name)
            setattr(self.sae, name, nn.Parameter(_shard(parameters[name], name, self.mesh)))

    def decoder_norms(self) -> PerLatent:
        """Return ‖W_dec,i‖ of all latents; differentiable."""
        return gather_points(self._own("W_dec").norm(dim=-1), self.group)

    def _own(self, name: str) -> Tensor:
        """Return this process's part of a parameter, its gradient that of the mean loss."""
        parameter = getattr(self.sae, name).to_local()
        return mean_gradient(parameter, self.group, is_shared=name not in LATENT_DIMENSION)

    def _encode(self, sae_in: Tensor) -> tuple[SparseLatents, None]:
        n, points = len(sae_in), self._all_points(sae_in)
        sae = self.sae
        offer: dict[str, Tensor] = {}

        def select(centered: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Pairs]:
            scores, indices = dense_topk(centered, weight, bias, min(sae.cfg.k, self.n_own))
            offered = self._to_owner(scores)
            chosen = offered.topk(sae.cfg.k, dim=1, sorted=False).indices
            is_chosen = torch.zeros_like(offered, dtype=torch.uint8).scatter(1, chosen, 1)
            is_kept = self._to_holder(is_chosen).bool()
            names = self._to_owner((indices + self.first).int())
            offer.update(is_kept=is_kept, chosen=chosen, names=names)
            return scores[is_kept], _pairs(indices, is_kept, self.n_own)

        input_bias = self._own("b_dec") if sae.cfg.apply_b_dec_to_input else None
        gain = self._own("W_dec").norm(dim=-1) if self.rescales_by_norm else None
        encoder = self._own("W_enc"), self._own("b_enc")
        found = preactivations(points, *encoder, input_bias, gain, select)
        assert found is not None  # TopK's selection never gives up
        pre, pairs = found
        kept = ActiveLatents(pre.relu(), pre, pairs)
        is_kept, chosen = offer["is_kept"], offer["chosen"]
        slots = pre.new_zeros(is_kept.shape).masked_scatter(is_kept, kept.values)
        values = self._to_owner(slots).gather(1, chosen)[:n]
        latents = ShardedLatents(values, offer["names"].gather(1, chosen)[:n].long(), self.d_sae)
        latents.kept = kept
        return latents, None

    def _decode(self, latents: Tensor | SparseLatents) -> Tensor:
        if not isinstance(latents, SparseLatents):
            raise ValueError(
                "`latents` of a sharded SAE must be `SparseLatents`, got a dense tensor: it would "
                "be gathered whole on every device; export the SAE and decode on one device"
            )
        values, _, pairs = self._kept(latents)
        recons = scatter_sums(self._decode_pairs(values, pairs, self._own("W_dec")), self.group)
        return recons[: len(latents.values)] + self._own("b_dec")

    def _kept(self, latents: SparseLatents) -> ActiveLatents:
        """Return those of all processes' active latents that this process holds."""
        if isinstance(latents, ShardedLatents) and hasattr(latents, "kept"):
            return latents.kept
        values = self._all_points(latents.values)
        indices = self._all_points(latents.indices.int()).long() - self.first
        is_kept = (indices >= 0) & (indices < self.n_own)
        own = values[is_kept]
        return ActiveLatents(own, own, _pairs(indices, is_kept, self.n_own))

    def _own_terms(self, output: ForwardOutput) -> dict[str, Tensor]:
        def predict(dead: Tensor) -> Tensor:
            def keep(hidden: Tensor) -> Tensor:
                if output.k_aux >= len(dead):
                    return hidden
                return hidden * (hidden >= self._kth_largest(hidden.detach(), output.k_aux))

            own = dead[(dead >= self.first) & (dead < self.first + self.n_own)] - self.first
            points = self._all_points(output.sae_in)
            partial = decode_dead(self.sae.cfg, points, own, self._own, keep)
            return scatter_sums(partial, self.group)[: len(output.residuals)]

        term = dead_latents_term(self.sae.cfg, output, predict)
        return {"auxiliary_reconstruction_loss": output.scale * term}

    def _kth_largest(self, scores: Tensor, k: int) -> Tensor:
        """Return, for each point `[all, 1]`, the k-th largest of the processes' scores."""
        best = scores.topk(min(k, scores.shape[1]), dim=1).values
        best = nn.functional.pad(best, (0, k - best.shape[1]), value=-torch.inf)
        threshold = self._to_owner(best).topk(k, dim=1).values[:, -1:]
        return gather_points(threshold, self.group)

    def _all_points(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, each process's filled up to the longest with zeros."""
        longest = torch.tensor(len(rows), device=rows.device)
        distributed.all_reduce(longest, distributed.ReduceOp.MAX, self.group)
        if missing := int(longest) - len(rows):
            rows = torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])
        return gather_points(rows, self.group)

    def _to_owner(self, found: Tensor) -> Tensor:
        """Bring what every process found for the points `[all, m]` to where the points are."""
        blocks = found.unflatten(0, (self.n_processes, -1))
        return exchange(blocks, self.group).transpose(0, 1).flatten(1)

    def _to_holder(self, answers: Tensor) -> Tensor:
        """Bring what is said of the candidates back to who found them: undoes `_to_owner`."""
        blocks = answers.unflatten(1, (self.n_processes, -1)).transpose(0, 1)
        return exchange(blocks, self.group).flatten(0, 1)


def _pairs(indices: Tensor, is_kept: Tensor, n_latents: int) -> Pairs:
    offsets = nn.functional.pad(is_kept.sum(1).cumsum(0), (1, 0))
    return Pairs(indices[is_kept], offsets, n_latents)


def _shard(parameter: Tensor, name: str, mesh: Any) -> Any:
    from torch.distributed.tensor import DTensor, Replicate, Shard

    entire = parameter.detach()
    dimension = LATENT_DIMENSION.get(name)
    if dimension is None:
        return DTensor.from_local(entire, mesh, [Replicate()], run_check=False)
    own = entire.chunk(mesh.size(), dimension)[mesh.get_local_rank()]
    own = own.clone(memory_format=torch.contiguous_format)  # a view would keep the whole in memory
    return DTensor.from_local(own, mesh, [Shard(dimension)], run_check=False)


def _check(model: SAEModel, mesh: Any) -> None:
    n_processes = mesh["tensor_parallel"].size()
    if model.architecture != "topk":
        raise ValueError(
            f"an SAE divided among devices must be of architecture topk, got "
            f"{model.architecture!r}; train it with `strategy: ddp`"
        )
    if mesh.size() != n_processes:
        raise ValueError(
            "the latents must be divided among all devices: set `data_parallel_size` to 1, got "
            f"{mesh.size() // n_processes}"
        )
    if model.d_sae % n_processes:
        raise ValueError(
            f"the number of devices must divide d_sae = {model.d_sae}, got {n_processes}: take "
            f"{max(n for n in range(1, n_processes) if model.d_sae % n == 0)} devices"
        )
