"""Sharing on the Hugging Face Hub: everything that can be refused is checked before the work."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from orchard.adapters import scaling
from orchard.errors import UserError, listed, one_line

Kind = Literal["model", "dataset"]
LOG_IN = "set HF_TOKEN or run `hf auth login` with a token that may write"
USUAL_WEIGHTS = "pytorch_lora_weights.safetensors"


def check(repo: str, kind: Kind) -> str:
    """The full id of the repository that ``--push_to_hub repo`` means; asks the Hub who the user is.

    Raises:
        UserError: not a name the Hub takes, no token, one that may only read, or a foreign namespace.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push_to_hub {repo}: not a name for a {kind} ({error})") from None
    user = _user(repo)
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"--push_to_hub {repo}: the token may only read; {LOG_IN}")
    full = repo if "/" in repo else f"{user['name']}/{repo}"
    spaces = [user["name"], *(org["name"] for org in user.get("orgs", ()))]
    if full.split("/")[0] not in spaces:
        raise UserError(f"--push_to_hub {repo}: {user['name']} may write to {', '.join(spaces)} only")
    return full


def _user(repo: str) -> dict[str, Any]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        return HfApi().whoami()
    except LocalTokenNotFoundError:
        raise UserError(f"--push_to_hub {repo}: no token; {LOG_IN}") from None
    except Exception as error:  # the client raises whatever its transport raises
        raise UserError(
            f"--push_to_hub {repo}: the Hub did not accept the token ({one_line(error)})"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a folder is to be on the Hub."""

    repo: str
    kind: Kind
    folder: Path
    files: Mapping[str, Path | bytes]
    """Path in the repository -> local file, or what is to stand there."""
    ours: re.Pattern[str]
    """The paths that such a folder may have; others in the repository are somebody else's."""


def upload(push: Push, *, private: bool, message: str) -> list[str]:
    """Bring the repository to the state of the folder in one commit; what there is to say of it, in lines.

    Raises:
        UserError: the Hub cannot be reached or refuses; the local files are untouched.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    try:
        address = api.create_repo(push.repo, repo_type=push.kind, private=private, exist_ok=True)
        there = set(api.list_repo_files(push.repo, repo_type=push.kind)) - push.files.keys()
        gone = sorted(name for name in there if push.ours.fullmatch(name))
        adds = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in push.files.items()
        ]
        deletes = [CommitOperationDelete(name) for name in gone]
        api.create_commit(push.repo, [*adds, *deletes], commit_message=message, repo_type=push.kind)
    except Exception as error:  # the client raises whatever its transport raises
        raise UserError(
            f"--push_to_hub {push.repo}: upload failed ({one_line(error)}); everything is kept in "
            f"{push.folder}, run the same command again to upload it"
        ) from None
    deleted = [f"deleted there: {listed(gone)}"] if gone else []
    return [f"uploaded to {address}", *deleted]


def weights(repo: str, file: str | None) -> Path:
    """The LoRA file of a model repository, from the cache or fetched; without a name its only one.

    Raises:
        UserError: no such repository or file, no connection, or several files to choose from.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        if file is None:
            names = [name for name in HfApi().list_repo_files(repo) if name.endswith(".safetensors")]
            file = _only(repo, names)
        path = Path(hf_hub_download(repo, file))
        with suppress(EntryNotFoundError):  # only peft writes one
            hf_hub_download(repo, str(PurePosixPath(file).with_name(scaling.PEFT_CONFIG)))
        return path
    except UserError:
        raise
    except Exception as error:  # the client raises whatever its transport raises
        raise UserError(
            f"--lora {repo}{f':{file}' if file else ''}: no such file here, nor could the Hub be asked "
            f"({one_line(error)}); check the name and the network"
        ) from None


def _only(repo: str, names: Sequence[str]) -> str:
    """The one to take: the name that diffusers' own scripts give, else the only one."""
    if USUAL_WEIGHTS in names:
        return USUAL_WEIGHTS
    if len(names) != 1:
        there = f"has {', '.join(names)}" if names else "has no safetensors file"
        raise UserError(f"--lora {repo}: {there}; name one as {repo}:FILE")
    return names[0]
