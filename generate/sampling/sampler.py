"""Rows -> images, lazily: one generator an image, every batch full, the next batch already under way."""

import queue
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from PIL import Image

from generate.planning.plan import Row
from generate.planning.settings import Settings
from generate.sampling import decoder, guidance, repainting
from generate.sampling.repainting import Kept
from generate.sampling.schedulers import scheduler_of
from orchard.bases.pipeline import Pipeline, call_options
from orchard.errors import UserError
from orchard.images.images import square

HOPELESS = 8
"""Rows of a class that are given up before one has given an image, at which sampling ends."""


class Sampler:
    """A pipeline with its scheduler set.

    ``depth`` batches are denoised in a thread of their own while the caller decodes, stores and asks for
    more; 0 does one thing after the other.
    """

    def __init__(
        self,
        pipe: Pipeline,
        settings: Settings,
        *,
        batch_size: int,
        attempts: int = 1,
        depth: int = 1,
    ) -> None:
        self.pipe, self.settings, self.batch_size = pipe, settings, batch_size
        self.attempts, self.depth = attempts, depth
        self.hopeless: Counter[str] = Counter()
        """Rows by class of which no seed gave an image."""
        self.able: set[str] = set()
        """Classes of which a row has given one."""
        self.states = guidance.TextStates(pipe, settings.contrast, settings.reading)
        # Whoever denoises: a scheduler serves one batch at a time.
        self.turn = threading.Lock()
        self.unwanted = threading.Event()
        pipe.scheduler = scheduler_of(settings.scheduler, pipe)

    def sample(self, blocks: Iterable[Sequence[Row]]) -> Generator[tuple[Row, Image.Image]]:
        """One image a row, in order, from batches of rows; the row tells the seed that was used at last.

        A black image stands for a row with a fault: none of its seeds gave one that can be used.

        Raises:
            UserError: so it was with the first `HOPELESS` rows of a class; then it is not the rows.
        """
        made = ((block, self._denoise(block)) for block in blocks)
        self.unwanted.clear()
        with closing(prefetch(made, self.depth, self.unwanted)) as ready:
            for block, (latents, kept) in ready:
                yield from self._usable(block, latents, kept)

    @torch.no_grad()
    def _denoise(self, rows: Sequence[Row]) -> tuple[torch.Tensor, list[Kept]]:
        """``batch_size`` latents: short batches are filled up, since equal shapes give equal pixels.

        Of rows that repaint, also what each keeps of its photo.
        """
        filled = [*rows, *[rows[-1]] * (self.batch_size - len(rows))]
        with self.turn:
            options = {
                **self.states.of(filled),
                "generator": [torch.Generator().manual_seed(row.seed) for row in filled],
                "num_inference_steps": self.settings.steps,
                "guidance_scale": guidance.scale(filled, self.pipe._execution_device),
                "output_type": "latent",
                "callback_on_step_end": self._break_off,
            }
            if filled[0].canvas:
                return repainting.repaint(
                    self.pipe, lambda **image: self.pipe(**options, **image).images, filled
                )
            return self.pipe(**options, **self._guides(filled)).images, []

    def _break_off(self, pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """Leave a batch that nobody waits for: a run that is asked to stop would wait minutes for it."""
        if self.unwanted.is_set():
            raise RuntimeError("the batch is not wanted any more")
        return tensors

    def _guides(self, rows: Sequence[Row]) -> dict[str, Any]:
        if rows[0].strength is None:
            return call_options(self.pipe)
        photos = [row.guide for row in rows if row.guide]
        pictures = [square(photo.image(), self.settings.resolution) for photo in photos]
        return {"image": pictures, "strength": rows[0].strength}

    def _usable(
        self, rows: Sequence[Row], latents: torch.Tensor, kept: Sequence[Kept]
    ) -> Iterator[tuple[Row, Image.Image]]:
        """Rows with their images; faulty ones are sampled again together, with their next seeds."""
        found: dict[int, tuple[Row, Image.Image]] = {}
        waiting = list(rows)
        while waiting:
            decoded = decoder.decode(self.pipe, latents)[: len(waiting)]
            pairs = list(zip(waiting, decoded, strict=True))
            images = [one.image for one in decoded]
            if kept:
                images = [keep.pasted(image) for keep, image in zip(kept, images, strict=False)]
            waiting = []
            for (row, one), image in zip(pairs, images, strict=True):
                if one.fault is None:
                    found[row.index] = row, image
                    self.able.add(row.label)
                elif row.attempt + 1 < self.attempts:
                    waiting.append(row.again())
                else:
                    found[row.index] = self._give_up(row, one.fault), Image.new("RGB", image.size)
            if waiting:
                latents, kept = self._denoise(waiting)
        yield from (found[row.index] for row in rows)

    def _give_up(self, row: Row, fault: str) -> Row:
        self.hopeless[row.label] += 1
        if row.label not in self.able and self.hopeless[row.label] >= HOPELESS:
            raise UserError(
                f"{row.label} image {row.index} is {fault} with {self.attempts} seeds, and so were all "
                f"{HOPELESS} images of its class so far; {decoder.remedy(self.pipe, fault)}"
            )
        return replace(row, fault=fault)


Item = TypeVar("Item")
PATIENCE = 0.1
"""Seconds between two looks at whether anybody still wants the items."""


def prefetch(items: Iterable[Item], depth: int, unwanted: threading.Event | None = None) -> Generator[Item]:
    """The items in their order, up to ``depth`` of them made in advance; 0 makes each when it is asked for.

    An error of the maker is raised here, after the items before it. When the user stops early the maker
    stops after the item it is at, or before where it looks at ``unwanted``, which is set then.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    unwanted = unwanted or threading.Event()
    maker = threading.Thread(target=_make, args=(items, ready, unwanted), name="ahead", daemon=True)
    maker.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        unwanted.set()
        maker.join()


def _make(items: Iterable[Any], ready: "queue.Queue[tuple[str, Any]]", unwanted: threading.Event) -> None:
    try:
        for item in items:
            if not _put(("item", item), ready, unwanted):
                return
        _put(("end", None), ready, unwanted)
    except BaseException as error:  # whatever it is, the user's thread has to hear of it
        _put(("error", error), ready, unwanted)


def _put(message: tuple[str, Any], ready: "queue.Queue[tuple[str, Any]]", unwanted: threading.Event) -> bool:
    """Hand the message over; False when nobody wants it any more."""
    while not unwanted.is_set():
        with suppress(queue.Full):
            ready.put(message, timeout=PATIENCE)
            return True
    return False
