"""Train one adapter, from the start or from a checkpoint, and write its file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from finetune.context import Job, RunContext
from finetune.models import lora
from finetune.outputs.monitor import Monitor
from finetune.outputs.snippets import exported
from finetune.step.batches import TrainingData
from finetune.training import checkpoints, saving, sharded
from finetune.training import learner as learners
from finetune.training.learner import Learner
from finetune.training.loop import train_steps
from finetune.training.saving import StopError
from orchard import software
from orchard.adapters import adapter, contexts
from orchard.adapters.provenance import Provenance
from orchard.errors import UserError
from orchard.images.splits import stable_hash


def train_adapter(
    run: RunContext, job: Job, data: TrainingData, advance: Callable[[float, str], None]
) -> Path:
    """Train the adapter of ``job`` on ``data`` and write it; the path of its file.

    ``advance`` is called after every step. The base is left without an adapter.

    Raises:
        UserError: the loss is not finite, or something cannot be written.
        StopError: a signal came; a checkpoint was saved, or the adapter if training was over.
    """
    config, losses = run.config, list(job.checkpoint.losses) if job.checkpoint else []
    try:
        with run.interrupt, _injected(run, job) as learner:
            monitor = Monitor(run, job, data.held_out)
            for step in train_steps(run.family, data, learner, config, run.accelerator, len(losses)):
                losses.append(step.loss)
                monitor.step(learner, step)
                advance(1, f"loss {np.mean(losses[-50:]):.4f}")
                saving.save_due(
                    config, run.accelerator, run.interrupt, learner, losses, job.name, job.identity
                )
            with learner.for_inference():
                learner.require_finite()
                monitor.write_sheets()
                _write_adapter(run, job, losses)
            if code := run.interrupt.exit_code(run.accelerator):
                raise StopError(job.path(config.output), code)
    except FloatingPointError as error:
        raise UserError(f"{job.name}: {error}; use a lower --learning_rate or --precision fp32") from None
    return job.path(config.output)


@contextmanager
def _injected(run: RunContext, job: Job) -> Iterator[Learner]:
    """Inside, the base has a fresh adapter, or that of the job's checkpoint; afterwards none.

    Depends on nothing trained before: the same job gives the same bits first or last in a run.
    """
    config, family, accelerator = run.config, run.family, run.accelerator
    folder = checkpoints.folder_of(config.output, job.name)
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        torch.manual_seed(stable_hash("training", config.seed, job.name, accelerator.process_index))
        if run.scaler:
            accelerator.scaler.load_state_dict(run.scaler)
        groups = learners.parameter_groups(lora.inject_all(family, run.plan.targets, config), family, config)
        learner = learners.prepare(family, groups, config, accelerator)
        if accelerator.is_main_process:
            checkpoints.tidy(folder)
        if job.checkpoint:
            checkpoints.load(job.checkpoint, accelerator, learner)
        elif accelerator.is_main_process:
            checkpoints.clear(folder)
        try:
            yield learner
        finally:
            learner.release(accelerator)
            for model in family.models.values():
                lora.remove(model)


def _write_adapter(run: RunContext, job: Job, losses: Sequence[float]) -> None:
    """Write the adapter, and by ``--export`` a file for other tools; called by all processes.

    The adapter comes last: once it is there, the job counts as finished.
    """
    family, path = run.family, job.path(run.config.output)
    with sharded.gathered_parameters(family.models.values()):
        if run.accelerator.is_main_process:
            provenance, encoders = _provenance(run, job, losses), family.text_encoders
            if run.config.export != "none":
                adapter.save(
                    exported(path, run.config.export),
                    family.denoiser,
                    provenance,
                    prefix=family.prefix,
                    text_encoders=encoders,
                    dialect=run.config.export,
                )
            adapter.save(path, family.denoiser, provenance, prefix=family.prefix, text_encoders=encoders)
    run.accelerator.wait_for_everyone()


def _provenance(run: RunContext, job: Job, losses: Sequence[float]) -> Provenance:
    config, base, captions = run.config, run.plan.base, run.plan.captions
    tenth = max(1, len(losses) // 10)
    return Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=base.resolution,
        classes=list(job.classes),
        all_classes=list(job.photos.classes),
        prompt=config.template,
        rank=config.rank,
        alpha=config.alpha or config.rank,
        method=config.method,
        targets=list(config.targets),
        text_encoders=list(run.family.text_encoders),
        steps=config.steps,
        seed=config.seed,
        losses={"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:]))},
        trained_on=sorted(job.photos.hashes()),
        data=job.photos.name,
        contexts={name: contexts.bank(said) for name, said in captions.by_class(job.photos).items()},
        options=dict(job.identity),
        versions=software.versions(),
        commit=software.commit(),
    )
