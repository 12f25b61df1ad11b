"""Parts of the check that look into a step: a profile as a table of shares, and a step taken as one CUDA graph."""

import re
import time
from collections import defaultdict

import numpy as np
from inputs import (
    N_LABELS,
    Check,
    build,
    fold_of,
    free_memory,
    make_corpus,
    make_real,
    scratch,
    seconds_per_call,
    settings,
    wait,
)

# 1. A profile of 20 steps

PROFILED_STEPS = 20
KINDS = {
    # kind of kernel: what its name has in it; the first that fits counts
    "attention": r"flash|fmha|attention|softmax",
    "optimizer and clipping": r"multi_tensor|adam|foreach|l2norm|lpnorm",
    "4-bit weights": r"dequant|4bit|nf4|kgemm",
    "matrix products": r"gemm|cutlass|cublas|wgmma|nvjet|sm\d\d_xmma|splitk|addmm|bmm|::mm$",
    "normalisation": r"layer_norm|layernorm|rms",
    "dropout": r"dropout|bernoulli|philox",
    "embeddings": r"embedding|index|gather|scatter",
    "copies and casts": r"copy|memcpy|memset|convert|_to_copy|cat",
    "sums": r"reduce|sum|mean",
    "other arithmetic": r"elementwise|vectorized|gelu|tanh|mul|add|div|where|fill",
}
HOST_CALLS = {
    "launches": r"LaunchKernel",
    "waits": r"Synchronize|StreamWaitValue",
    "copies": r"cudaMemcpy",
}


def part_profile(check: Check) -> None:
    """20 steps of an encoder, a large one, and LoRA: shares as a table in profile.md."""
    corpus = make_corpus(check.choose(3000, 300))
    for name, learner, batch in (
        ("roberta-base", "encoder", 16),
        ("bert-6x384", "encoder", 16),
        ("qwen2.5-1.5b", "decoder", 16),
        ("deberta-v3-large", "encoder", 16),
    ):
        check.attempt(f"{name}, batch {batch}", profile_steps, check, name, learner, batch, corpus)


def profile_steps(check: Check, name: str, learner: str, batch: int, corpus) -> dict[str, object]:
    import torch

    from foldblend.learners.training.loop import build_fold, plan_steps, take_step

    folder, n = make_real(check, name, corpus.texts), check.choose(PROFILED_STEPS, 2)
    learner = build(settings(learner, folder, training__global_batch_size=batch), corpus)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * (check.device == "cuda")
    with scratch() as where:
        fold, state = build_fold(learner, fold_of(corpus, where, 50))
        steps = plan_steps(learner, fold.rows, 0)
        for rows in steps[:5]:
            take_step(learner, fold, state, rows)
        wait()
        started = time.perf_counter()
        with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
            for i in range(n):
                take_step(learner, fold, state, steps[(5 + i) % len(steps)])
            wait()
            seconds = time.perf_counter() - started
    shares = read_profile(profiler.events(), check.device, seconds, n)
    write_table(check, f"{name}, batch {batch}, {learner.precision}", shares)
    return {key: value for key, value in shares.items() if not isinstance(value, dict)}


def read_profile(events, device: str, seconds: float, n_steps: int) -> dict[str, object]:
    """Per step: milliseconds by kind of kernel, kernels, the GPU's busy time, and what the host calls.

    On a CPU, where there are no kernels, operators take their place, each without those that it calls.
    """
    import torch

    on_gpu = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    if device == "cuda":
        timed = [(event.name, event.time_range.elapsed_us()) for event in on_gpu]
    else:
        timed = [(event.name, event.self_cpu_time_total) for event in events]
    kinds, counts, host = defaultdict(float), defaultdict(int), defaultdict(lambda: [0, 0.0])
    for name, microseconds in timed:
        kind = next((kind for kind, words in KINDS.items() if re.search(words, name, re.IGNORECASE)), "unnamed")
        kinds[kind] += microseconds / n_steps / 1e3
        counts[kind] += 1
    for event in events:
        for call, words in HOST_CALLS.items():
            if event.device_type == torch.autograd.DeviceType.CPU and re.search(words, event.name):
                host[call][0] += 1
                host[call][1] += event.self_cpu_time_total / n_steps / 1e3
    busy, whole = sum(kinds.values()), seconds / n_steps * 1e3
    slowest = defaultdict(float)
    for name, microseconds in timed:
        slowest[name[:70]] += microseconds / n_steps / 1e3
    return {
        "ms a step, profiled": round(whole, 2),
        "GPU busy ms": round(busy, 2),
        "GPU idle": f"{max(0.0, 1 - busy / whole):.0%}",
        "kernels": round(len(timed) / n_steps),
        **{f"host {call}": round(n / n_steps, 1) for call, (n, _) in host.items()},
        "kinds": {kind: (ms, round(counts[kind] / n_steps)) for kind, ms in sorted(kinds.items(), key=lambda x: -x[1])},
        "host": {call: (ms, round(n / n_steps)) for call, (n, ms) in host.items()},
        "slowest": {name: (ms, 0) for name, ms in sorted(slowest.items(), key=lambda x: -x[1])[:12]},
    }


def write_table(check: Check, title: str, shares: dict) -> None:
    """Append a profile to profile.md, as tables of shares of a step."""
    whole = shares["ms a step, profiled"]
    lines = [f"\n## {title}: {whole} ms a step, GPU idle {shares['GPU idle']}\n"]
    lines += ["| part | ms | share | calls |", "|---|---|---|---|"]
    for group in ("kinds", "host", "slowest"):
        for name, (ms, n) in shares[group].items():
            words = {"kinds": name, "host": f"host: {name}", "slowest": f"`{name}`"}[group]
            lines.append(f"| {words} | {ms:.3f} | {ms / whole:.1%} | {n or ''} |")
    with open(check.out / "profile.md", "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


# 2. One step as it is, with a prepared mask, with 16-bit weights, and as a CUDA graph


def part_graph(check: Check) -> None:
    """Milliseconds of one step of roberta-base's size in each of these forms."""
    corpus = make_corpus(check.choose(3000, 300))
    folder = make_real(check, "roberta-base", corpus.texts)
    for batch, length in ((16, 16), (16, 32), (32, 24)):
        inputs = draw_inputs(check, batch, length)
        for name, halves, is_prepared, is_graph in (
            ("as it is", False, False, False),
            ("graph", False, True, True),
            ("graph, 16-bit weights", True, True, True),
            ("prepared mask", False, True, False),
            ("16-bit weights", True, True, False),
        ):
            if not is_graph or check.device == "cuda":
                how = (check, folder, inputs, halves, is_prepared, is_graph)
                check.attempt(f"{batch} x {length}, {name}", time_form, *how)


def draw_inputs(check: Check, batch: int, length: int) -> dict:
    """Random tokens; half of the rows end in two padding tokens. Both kinds of mask."""
    import torch

    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 500, (batch, length))).to(check.device)
    mask = torch.ones_like(ids)
    mask[: batch // 2, -2:] = 0
    whole = (mask != 0)[:, None, None, :].expand(-1, 1, length, -1)  # what transformers would make of it, with a wait
    targets = torch.rand(batch, N_LABELS, device=check.device)
    return {"ids": ids, "mask": mask, "whole": whole, "targets": targets}


class Form:
    """A model, its AdamW, and optionally 16-bit copies of its linear weights beside float32 ones."""

    def __init__(self, check: Check, folder, halves: bool, is_graph: bool):
        import torch

        from foldblend.learners.nets.classifier import build_model

        run = settings("encoder", folder)
        self.device = check.device
        self.model = build_model(folder, run.model, None, N_LABELS, 0).to(check.device)
        self.masters, self.copies = self._halve() if halves else ([], [])
        own = {id(copy) for copy in self.copies}
        self.weights = [weight for weight in self.model.parameters() if id(weight) not in own] + self.masters
        lr = torch.tensor(1e-5, device=check.device) if is_graph else 1e-5  # a graph reads it where it is
        self.optimizer = torch.optim.AdamW(self.weights, lr=lr, fused=True, capturable=is_graph)

    def _halve(self) -> tuple[list, list]:
        from torch import nn

        masters, copies = [], []
        for module in self.model.encoder.modules():
            if isinstance(module, nn.Linear):
                for name in ("weight", "bias"):
                    whole = getattr(module, name).detach()
                    setattr(module, name, nn.Parameter(whole.bfloat16()))
                    masters.append(nn.Parameter(whole.clone()))
                    copies.append(getattr(module, name))
        return masters, copies

    def step(self, inputs: dict, is_prepared: bool):
        """One step; returns the loss, on the device."""
        import torch
        from torch import nn

        seen = inputs["whole"] if is_prepared else inputs["mask"]
        # A graph cannot keep autocast's cache: its tensors are freed when the block ends.
        with torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=False):
            states = self.model.encoder(input_ids=inputs["ids"], attention_mask=seen)
            logits = self.model.read_labels(states, inputs["mask"])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, inputs["targets"])
        loss.backward()
        for master in self.masters:
            if master.grad is None:
                master.grad = torch.empty_like(master)
        if self.masters:
            torch._foreach_copy_([m.grad for m in self.masters], [copy.grad for copy in self.copies])
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        if self.masters:
            with torch.no_grad():
                torch._foreach_copy_(self.copies, self.masters)
        return loss

    def plain(self, inputs: dict, is_prepared: bool):
        """A step that begins without gradients."""
        self.model.zero_grad(set_to_none=True)
        return self.step(inputs, is_prepared)


def time_form(check: Check, folder, inputs: dict, halves: bool, is_prepared: bool, is_graph: bool) -> dict[str, object]:
    form = Form(check, folder, halves, is_graph)
    if is_graph:
        return time_graph(form, inputs, is_prepared)
    seconds = seconds_per_call(lambda: form.plain(inputs, is_prepared), check.choose(40, 2), 3)
    return {"ms": round(seconds * 1e3, 2)}


def time_graph(form: Form, inputs: dict, is_prepared: bool) -> dict[str, object]:
    """Capture a step after a few on a side stream, then replay it."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            form.plain(inputs, is_prepared)
    torch.cuda.current_stream().wait_stream(side)
    form.model.zero_grad(set_to_none=True)
    free_memory()
    graph, started = torch.cuda.CUDAGraph(), time.perf_counter()
    with torch.cuda.graph(graph):
        loss = form.step(inputs, is_prepared)
    captured = time.perf_counter() - started
    graph.replay()
    first = float(loss)
    seconds = seconds_per_call(graph.replay, 100, 5)
    found = {"ms": round(seconds * 1e3, 2), "captured s": round(captured, 2)}
    return found | {"loss": f"{first:.3f} -> {float(loss):.3f}", "verdict": "ok" if float(loss) < first else "DIFFERS"}
