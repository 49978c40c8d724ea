"""Weights that a network begins with: a file, a classifier of ours, or what timm's cache holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchard.errors import UserError
from orchard.files import checked_safetensors

if TYPE_CHECKING:
    from torch import Tensor, nn

FEATURES, TIMM, CACHE = "features:", "timm:", "cache"
"""Before a network's name: solve its last layer, take it from timm. In place of weights: what is cached."""
PARTS = ("model.safetensors", "pytorch_model.safetensors")
"""Names that weights have in a folder or a repository."""
OWN = "network."
"""Before the keys of our own classifiers."""


def load_into(network: "nn.Module", name: str, source: str, labels: Sequence[str] = ()) -> None:
    """Give ``network`` the weights under ``source``, all but those of a last layer for other classes.

    A classifier of ours says what its outputs stand for: its last layer is brought into the order of
    ``labels``, where they are given, or is left out. Of other files the number of classes has to do.

    Raises:
        UserError: they are not at hand, are no safetensors, or belong to another network.
    """
    path = find(name, source)
    try:
        state = checked_safetensors.load(path)
    except ValueError as error:
        raise UserError(f"--pretrained {path}: not a whole safetensors file ({error})") from None
    state = {key.removeprefix(OWN): value for key, value in state.items()}
    _load(network, _relabelled(network, state, path, labels), name, path)


def _relabelled(
    network: "nn.Module", state: "Mapping[str, Tensor]", path: Path, labels: Sequence[str]
) -> "Mapping[str, Tensor]":
    """The weights with the outputs of the last layer in the order of ``labels``, or without that layer."""
    from orchard.classifiers.classifier import classes_of

    there = classes_of(path)
    if not there or not labels or list(there) == list(labels):
        return state
    ends = _last_keys(network)
    if sorted(there) != sorted(labels):
        return {key: value for key, value in state.items() if key not in ends}
    order = [there.index(label) for label in labels]
    return {key: value[order] if key in ends else value for key, value in state.items()}


def _last_keys(network: "nn.Module") -> set[str]:
    """The names of the last layer's tensors."""
    from orchard.classifiers.networks import last_layer

    last = last_layer(network)
    prefix = next(key for key, module in network.named_modules() if module is last)
    return {f"{prefix}.{key}" for key in last.state_dict()}


def _load(network: "nn.Module", state: "Mapping[str, Tensor]", name: str, path: Path) -> None:
    wanted, ends = network.state_dict(), _last_keys(network)
    fits = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    # Counters of batch norm are new in some versions and play no part in its output.
    missing = [key for key in wanted.keys() - fits.keys() - ends if not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"--pretrained {path}: {len(wanted) - len(missing)} of {len(wanted)} tensors fit {name}, "
            f"{min(missing)} does not; give the weights of that network at that --size"
        )
    network.load_state_dict(fits, strict=False)


def find(name: str, source: str) -> Path:
    """The file that ``--pretrained`` names; nothing is fetched.

    Raises:
        UserError: there is none.
    """
    if source == CACHE:
        return _cached(name)
    path = Path(source).expanduser()
    inside = [path / part for part in PARTS if (path / part).is_file()]
    if not path.is_file() and not inside:
        raise UserError(f"--pretrained {source}: no such file, nor a folder with {PARTS[0]} in it")
    return inside[0] if inside else path


def _cached(name: str) -> Path:
    if not name.startswith(TIMM):
        raise UserError(
            f"--pretrained cache: holds weights of `timm:NAME` networks, not of {name}, whose published "
            "files are no safetensors; name such a network or a .safetensors file"
        )
    import timm
    from huggingface_hub import try_to_load_from_cache

    tag = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    repository = tag.hf_hub_id if tag else None
    found = repository and try_to_load_from_cache(repository, PARTS[0])
    if not isinstance(found, str):
        hint = f"fetch them with `hf download {repository}`" if repository else "there are none for it"
        raise UserError(f"--pretrained cache: no weights of {name} in the Hugging Face cache; {hint}")
    return Path(found)
