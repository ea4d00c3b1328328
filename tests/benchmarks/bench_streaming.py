"""The stream of residuals beside plain transformers and SAELens.

python tests/benchmarks/bench_streaming.py: all contenders run the same contexts through the same
eleven layers of SmolLM2 in one process, in turn: a round is a few batches of each. Ours is the data
module's training stream, windows filled and shuffled, labeled points mixed in. `--tokens 1000000`
is the long run, beside the plain model in the same dtype alone, which takes shorter turns;
`--memory` streams 2M tokens through one layer and prints the process's size as it goes.
"""

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saerepgeo.data.module import ActivationDataModule
from saerepgeo.lm.sources import SMOLLM2, load_model

LAYER = 10
HOOK = f"blocks.{LAYER}.hook_resid_post"
OURS = "ours"
PLAIN = ("plain, weights held in bf16", "plain, autocast", "plain, all in bf16")
SAME_DTYPE = PLAIN[0]
LONG = 1_000_000
Turn = Callable[[], int]
"""Streams a few batches; returns the tokens that went through the model."""


def our_turns(data: ActivationDataModule, n_batches: int) -> Turn:
    """Return turns of the training stream, its first window already there."""
    stream = data.stream
    batches = iter(stream)
    next(batches)

    def turn() -> int:
        before = stream.n_tokens
        for _ in range(n_batches):
            next(batches)
        return stream.n_tokens - before

    return turn


def truncated(model: Any) -> Any:
    """Return the layers up to the hook of a plain transformers model, and nothing behind them."""
    base = copy.deepcopy(model.model)
    base.layers = base.layers[: LAYER + 1]
    base.norm = torch.nn.Identity()
    return base


def plain_turns(model: Any, calls: Iterator[Tensor], n_calls: int, autocast: bool) -> Turn:
    """Return turns of the model alone: nothing is kept, shuffled or taken out."""

    @torch.no_grad()
    def turn() -> int:
        n_tokens = 0
        for _ in range(n_calls):
            tokens = next(calls)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                model(tokens, use_cache=False)
            n_tokens += tokens.numel()
        return n_tokens

    return turn


def lens_turns(
    bridge: Any, contexts: Tensor, data: ActivationDataModule, n_batches: int, autocast: bool
) -> Turn:
    """Return turns of SAELens' ActivationsStore with a buffer as large as our window."""
    import datasets
    from sae_lens.training.activations_store import ActivationsStore

    h = data.hparams
    n_calls = 0
    store = ActivationsStore(
        model=bridge,
        dataset=datasets.Dataset.from_dict({"tokens": contexts.tolist()}),
        streaming=False,
        hook_name=HOOK,
        hook_head_index=None,
        context_size=h["context_size"],
        d_in=data.model_facts.d_model,
        n_batches_in_buffer=h["window_steps"] * h["batch_size"] // h["context_size"],
        total_training_tokens=len(contexts),
        store_batch_size_prompts=h["lm_batch_size"],
        train_batch_size_tokens=h["batch_size"],
        prepend_bos=True,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
        autocast_lm=autocast,
    )
    run = store.get_activations

    def counted(tokens: Tensor) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return run(tokens)

    store.get_activations = counted  # type: ignore[method-assign]
    next(store)

    def turn() -> int:
        before = n_calls
        for _ in range(n_batches):
            next(store)
        return (n_calls - before) * h["lm_batch_size"] * h["context_size"]

    return turn


def plain_contenders(
    data: ActivationDataModule, n_batches: int, names: Container[str] = PLAIN
) -> dict[str, Turn]:
    """Return the plain model's turns, each over as many tokens as `n_batches` of ours take."""
    plan, tokens = data.stream.plan, data.stream._calls_from
    n_calls = max(1, round(n_batches * len(plan.calls(0)) / plan.window_steps))
    autocast = truncated(load_model(SMOLLM2))
    held = copy.deepcopy(autocast)
    for module in held.modules():
        if isinstance(module, torch.nn.Linear):
            module.bfloat16()
    models = dict(zip(PLAIN, (held, autocast, copy.deepcopy(autocast).bfloat16()), strict=True))
    return {
        name: plain_turns(model, tokens(0), n_calls, autocast=name != PLAIN[2])
        for name, model in models.items()
        if name in names
    }


def lens_contenders(data: ActivationDataModule, n_batches: int) -> dict[str, Turn]:
    """Return SAELens' turns over the model as SAELens has it hooked."""
    from transformer_lens.model_bridge import TransformerBridge

    model, tokenizer = load_model(SMOLLM2), data.tokenizer.tokenizer
    bridge = TransformerBridge.boot_transformers(
        SMOLLM2, hf_model=model, tokenizer=tokenizer, device="cpu"
    )
    contexts = data.contexts("train").read(range(4096))
    return {
        f"SAELens, {name}": lens_turns(bridge, contexts, data, n_batches, autocast)
        for name, autocast in (("default", False), ("autocast", True))
    }


def compare(turns: dict[str, Turn], n_tokens: int) -> None:
    """Take turns until ours has streamed `n_tokens`; print rates and the ratios of the rounds."""
    for turn in turns.values():
        turn()  # buffers are full, pages are there
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    streamed = 0
    while streamed < n_tokens:
        for name, turn in turns.items():
            wall, processor = time.perf_counter(), time.process_time()
            n = turn()
            spent = time.perf_counter() - wall, time.process_time() - processor
            rates[name].append((n / spent[0], n / spent[1]))
            streamed += n if name == OURS else 0
        if len(rates[OURS]) % 4 == 0:
            print(f"{streamed:,} tokens, {resident_mib():,.0f} MiB resident", flush=True)
    print(f"{streamed:,} tokens of ours, {len(rates[OURS])} rounds, peak {peak_mib():,.0f} MiB")
    for name, found in rates.items():
        pairs = list(zip(rates[OURS], found, strict=True))
        ratios = [spread([mine[i] / theirs[i] for mine, theirs in pairs]) for i in (0, 1)]
        rate = statistics.median(wall for wall, _ in found)
        print(f"| {name} | {rate:,.0f} | {' | '.join(ratios)} |", flush=True)


def spread(values: list[float]) -> str:
    """Return minimum, median and maximum."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(n_tokens: int) -> None:
    """Stream through the first layer alone; print the process's size ten times on the way."""
    data = ActivationDataModule(hook_name="blocks.0.hook_resid_post", cache_stream=False)
    data.setup("fit")
    stream = data.stream
    due = n_tokens / 10
    for _ in stream:
        if stream.n_tokens >= due:
            print(
                f"{stream.n_tokens:,} tokens: {resident_mib():,.0f} MiB, peak {peak_mib():,.0f}",
                flush=True,
            )
            due += n_tokens / 10
        if stream.n_tokens >= n_tokens:
            return


def main() -> None:
    """Print a table: name, tokens/s, ours over it by the clock, and by processor time."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tokens", type=int, default=80_000, help="of ours, in rounds")
    parser.add_argument("--batches", type=int, default=4, help="of each contender in a round")
    parser.add_argument("--memory", action="store_true", help="2M tokens through one layer")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(max(arguments.tokens, 2_000_000))
        return
    data = ActivationDataModule(hook_name=HOOK, cache_stream=False)
    data.setup("fit")
    is_long = arguments.tokens >= LONG
    turns = {OURS: our_turns(data, arguments.batches)}
    if is_long:
        turns |= plain_contenders(data, arguments.batches // 4, {SAME_DTYPE})
    else:
        turns |= plain_contenders(data, arguments.batches) | lens_contenders(
            data, arguments.batches
        )
    compare(turns, arguments.tokens)


if __name__ == "__main__":
    main()
