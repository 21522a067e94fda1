"""Do the smallest and the largest subnet want the same of the weights that they share?

    python benchmarks/gradient_conflict.py RUN

For each stage of a finished run's supernet: the cosine between both subnets' gradients on the entries that both have,
and the ratio of their norms, one batch of each client with the loss that it trains with, means over clients; then the
share of a round's clients that are sent an entry once all sizes train, by the run's strategy: mean over the entries
that the smallest has, and over those that only larger subnets have.
"""

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsup_deploy.commands.training_plan import make_strategy
from fedsup_deploy.federation.client import TRAINED
from fedsup_deploy.federation.jobs.train import log_shares
from fedsup_deploy.federation.simulation import CLIENTS
from fedsup_deploy.runs.federation import load_supernet
from fedsup_deploy.runs.run import Run, open_run
from fedsup_deploy.space.architecture import Architecture
from fedsup_deploy.supernet.model import Supernet

ROUNDS = 200


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--clients", type=int, default=20, help="the first so many")
    parser.add_argument("--images", type=int, default=64, help="of each client, at most")
    options = parser.parse_args()
    run = open_run(options.run)
    supernet = load_supernet(run)
    cosines, ratios = defaultdict(list), defaultdict(list)
    for client in range(min(options.clients, run.data.num_clients)):
        small, large = (
            gradients(run, supernet, run.space.resolve(name), client, options.images)
            for name in ("smallest", "largest")
        )
        for stage, names in stages(supernet).items():
            is_shared = [small[name] != 0 for name in names]
            ours, theirs = (torch.cat([g[n][m] for n, m in zip(names, is_shared, strict=True)]) for g in (small, large))
            cosines[stage].append(float(functional.cosine_similarity(ours, theirs, dim=0)))
            ratios[stage].append(float(ours.norm() / theirs.norm()))
    held = coverage(run, supernet)
    print("| stage | cosine | norm, smallest over largest | clients with shared entries | with the others |")
    print("| --- | --- | --- | --- | --- |")
    for stage in cosines:
        shared, others = held[stage]
        print(f"| {stage} | {np.mean(cosines[stage]):.2f} | {np.mean(ratios[stage]):.2f} | {shared:.0%} | {others} |")


def stages(supernet: Supernet) -> dict[str, list[str]]:
    """Return the tensors of each stage, by the first part of their names."""
    return {
        stage: list(names)
        for stage, names in itertools.groupby(supernet.weights, key=lambda name: name.partition(".")[0])
    }


def gradients(run: Run, supernet: Supernet, architecture: Architecture, client: int, images: int) -> dict[str, Tensor]:
    """Return the gradient of one subnet's loss with respect to every tensor of the supernet; 0 where it has no part."""
    weights = {name: tensor.clone().requires_grad_() for name, tensor in supernet.weights.items()}
    own = run.data.populations()[CLIENTS].client(client).images(TRAINED)
    batch = own.take(np.arange(min(images, len(own))))
    size = run.preprocessing.for_size(architecture.resolution)
    labels_N = torch.tensor(batch.labels_N)
    all_labels_N = torch.tensor(own.labels_N)
    has_offset = run.config.training.logit_adjustment
    offset_K = log_shares(all_labels_N, run.space.num_classes) if has_offset else torch.zeros(1)
    logits_NK = Supernet(supernet.layout, weights)(torch.from_numpy(size.apply(batch.images_NHWC)), architecture)
    functional.cross_entropy(logits_NK + offset_K, labels_N).backward()
    return {name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for name, tensor in weights.items()}


def coverage(run: Run, supernet: Supernet) -> dict[str, tuple[float, str]]:
    """Return for each stage the share of clients with the smallest's entries, and with the largest's other entries."""
    layout, strategy = supernet.layout, make_strategy(run.config, run.space)
    held = {name: torch.zeros(tensor.shape) for name, tensor in supernet.weights.items()}
    infos = strategy.eligible(run.data.populations()[CLIENTS].infos())
    generator, num_sent = np.random.Generator(np.random.PCG64(0)), 0
    for round_index in range(ROUNDS):
        drawn = generator.choice(len(infos), run.config.training.clients_per_round, replace=False)
        late = run.config.training.rounds + round_index
        cohort = [infos[client] for client in sorted(drawn.tolist())]
        for assignment in strategy.plan(late, cohort, run.config.seed).values():
            sent = layout.slices(assignment.architecture) if assignment.architecture else layout.whole
            for name, where in sent.items():
                held[name][where] += 1
            num_sent += 1
    found = {}
    for stage, names in stages(supernet).items():
        shared, others = [], []
        for name in names:
            in_smallest = torch.zeros(held[name].shape, dtype=torch.bool)
            inside = layout.slices(run.space.smallest).get(name)
            if inside is not None:
                in_smallest[inside] = True
            shared.append(held[name][in_smallest])
            others.append(held[name][~in_smallest])
        rest = torch.cat(others)
        found[stage] = (
            float(torch.cat(shared).mean() / num_sent),
            f"{float(rest.mean() / num_sent):.0%}" if len(rest) else "none",
        )
    return found


if __name__ == "__main__":
    main()
