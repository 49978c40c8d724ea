"""Train one adapter, from the start or from a checkpoint, and write its file."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from finetune.context import Job, RunContext
from finetune.models.methods import Method, method_of
from finetune.outputs.monitor import Monitor
from finetune.planning import resume
from finetune.step.batches import TrainingData
from finetune.training import checkpoints, saving, sharded
from finetune.training import learner as learners
from finetune.training.learner import Learner
from finetune.training.loop import train_steps
from finetune.training.private import private_steps
from finetune.training.saving import StopError
from orchard import software
from orchard.adapters import contexts, provenance
from orchard.adapters.provenance import FULL, INVERSION, Provenance
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
    steps = functools.partial(private_steps, privacy=job.privacy) if job.privacy else train_steps
    try:
        method = method_of(config, run.plan.targets, job.classes)
        with run.interrupt, _put_in(run, job, method) as learner:
            monitor = Monitor(run, job, data.held_out)
            for step in steps(run.family, data, learner, config, run.accelerator, len(losses)):
                losses.append(step.loss)
                monitor.step(learner, step)
                advance(1, f"loss {np.mean(losses[-50:]):.4f}")
                saving.save_due(
                    config, run.accelerator, run.interrupt, learner, losses, job.name, job.identity
                )
            with learner.for_inference():
                learner.require_finite()
                monitor.write_sheets(method)
                _write(run, job, method, losses)
            if code := run.interrupt.exit_code(run.accelerator):
                raise StopError(job.path(config.output), code)
    except FloatingPointError as error:
        raise UserError(f"{job.name}: {error}; use a lower --learning_rate or --precision fp32") from None
    return job.path(config.output)


@contextmanager
def _put_in(run: RunContext, job: Job, method: Method) -> Iterator[Learner]:
    """Inside, the base has what learns, fresh or of the job's checkpoint; afterwards it is as it was.

    Depends on nothing trained before: the same job gives the same bits first or last in a run.
    """
    config, family, accelerator = run.config, run.family, run.accelerator
    folder = checkpoints.folder_of(config.output, job.name)
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        torch.manual_seed(stable_hash("training", config.seed, job.name, accelerator.process_index))
        if run.scaler:
            accelerator.scaler.load_state_dict(run.scaler)
        groups = learners.parameter_groups(method.put_in(family), family, config)
        learner = learners.prepare(family, groups, config, accelerator)
        checkpoints.begin(folder, job.checkpoint, accelerator, learner)
        try:
            yield learner
        finally:
            learner.release(accelerator)
            method.take_out(family)


def _write(run: RunContext, job: Job, method: Method, losses: Sequence[float]) -> None:
    """Write what was learned; called by all processes.

    What is at the job's own path comes last: once it is there, the job counts as finished. The secret of a
    private one goes with its checkpoints.
    """
    with sharded.gathered_parameters(run.family.models.values()):
        if run.accelerator.is_main_process:
            method.save(job.path(run.config.output), run.family, _provenance(run, job, losses))
            if job.privacy:
                checkpoints.clear(checkpoints.folder_of(run.config.output, job.name))
    run.accelerator.wait_for_everyone()


def _provenance(run: RunContext, job: Job, losses: Sequence[float]) -> Provenance:
    config, base, captions = run.config, run.plan.base, run.plan.captions
    adapts = config.method not in (FULL, INVERSION)
    trained = list(run.plan.targets) if adapts else list(run.family.models)
    tenth = max(1, len(losses) // 10)
    ends = {"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:]))}
    return Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=base.resolution,
        classes=list(job.classes),
        all_classes=list(job.photos.classes),
        prompt=config.template,
        rank=config.rank if adapts else 0,
        alpha=(config.alpha or config.rank) if adapts else 0.0,
        method=config.method,
        targets=list(config.targets) if adapts else [],
        text_encoders=[name for name in trained if name != run.family.prefix],
        steps=config.steps,
        seed=config.seed,
        losses={} if job.privacy else ends,
        trained_on=sorted(_seen(run, job)),
        data=job.photos.name,
        contexts={name: contexts.bank(said) for name, said in captions.by_class(job.photos).items()},
        privacy=job.privacy,
        options=resume.published(job.identity),
        versions=software.versions(),
        commit=software.commit(),
    )


def _seen(run: RunContext, job: Job) -> set[str]:
    """Hashes of every real image that is in the weights: photos, the user's prior images, and the base's.

    With privacy those of the base alone: the others would tell who was among the photos.
    """
    tuned = provenance.of_folder(run.plan.base.folder)
    own = set() if job.privacy else {photo.sha256 for photo in job.encoded}
    return own.union(tuned.trained_on if tuned else ())
